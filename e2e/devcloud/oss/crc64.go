package oss

import "math/bits"

// crcPolynomial is the reflected polynomial of ECMA-182, as in hash/crc64.
const crcPolynomial = 0xC96C5795D7870F42

// combineCRC64 gives the CRC-64 of a followed by b from the CRCs of both and the length of b.
//
// A CRC register that takes in n zero bytes is multiplied by x^(8n) modulo the polynomial; initial value and final
// inversion cancel out between the two parts.
func combineCRC64(a, b uint64, lengthB int64) uint64 {
	return multiplyGF2(a, powerOfX(8*uint64(lengthB))) ^ b
}

// multiplyGF2 multiplies two polynomials modulo the CRC polynomial. Bit 63 is the coefficient of x^0.
func multiplyGF2(a, b uint64) uint64 {
	var product uint64
	for ; b != 0; b <<= 1 {
		if b>>63 == 1 {
			product ^= a
		}
		carry := a & 1
		a >>= 1
		if carry == 1 {
			a ^= crcPolynomial
		}
	}
	return product
}

// powerOfX gives x^n.
func powerOfX(n uint64) uint64 {
	result, square := uint64(1)<<63, uint64(1)<<62
	for range bits.Len64(n) {
		if n&1 == 1 {
			result = multiplyGF2(result, square)
		}
		square = multiplyGF2(square, square)
		n >>= 1
	}
	return result
}
