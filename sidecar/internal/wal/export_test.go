package wal

// ChecksumBases lets a test compute checksums the plain way.
var ChecksumBases = checksumBases
