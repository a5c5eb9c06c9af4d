package oss

import (
	"net/http"
	"testing"
)

// The vectors were recorded from the official SDKs (v1 3.0.2, v2 1.6.1) with these throw-away values.
const (
	goldenID     = "AKTEST"
	goldenSecret = "SKSECRET"
	goldenDate   = "Mon, 23 Nov 2026 04:00:10 GMT"
	goldenISO    = "20261123T040010Z"
	goldenKey    = "wal/a b+c~(1)'é/000000010000000000000001"
	emptyMD5     = "1B2M2Y8AsgTpgAmY7PhCfg=="
	octets       = "application/octet-stream"
	unsigned     = "UNSIGNED-PAYLOAD"
	credential   = goldenID + "/20261123/cn-hangzhou/oss/aliyun_v4_request"
)

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func mustQuery(t *testing.T, raw string) query {
	t.Helper()
	q, err := parseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestSignatureV1Golden(t *testing.T) {
	for _, v := range []struct {
		name, method, key, query, date, text, signature string
		header                                          http.Header
	}{
		{
			"put", "PUT", goldenKey, "", goldenDate,
			"PUT\n\napplication/octet-stream\nMon, 23 Nov 2026 04:00:10 GMT\nx-oss-forbid-overwrite:true\nx-oss-meta-lsn:0/1\nx-oss-tagging:k=v+w\n/bkt-one/wal/a b+c~(1)'é/000000010000000000000001",
			"n21ms1hE4xvQVVU4kNAlxIIsAHQ=",
			headers("Content-Type", octets, "X-Oss-Forbid-Overwrite", "true", "X-Oss-Meta-Lsn", "0/1", "X-Oss-Tagging", "k=v+w"),
		},
		{
			"append", "POST", "app/x", "append&position=0", goldenDate,
			"POST\n\napplication/octet-stream\nMon, 23 Nov 2026 04:00:10 GMT\n/bkt-one/app/x?append&position=0",
			"u4KBYF1EN2xDDwZUzaAIpB5W2xM=", headers("Content-Type", octets),
		},
		{
			"ranged get", "GET", goldenKey, "", goldenDate,
			"GET\n\n\nMon, 23 Nov 2026 04:00:10 GMT\nx-oss-range-behavior:standard\n/bkt-one/wal/a b+c~(1)'é/000000010000000000000001",
			"F87j0QWaBGCQWfz5QF3M66pwl10=", headers("Range", "bytes=1-3", "X-Oss-Range-Behavior", "standard"),
		},
		{
			"second page", "GET", "", "continuation-token=c3RyZWFt&encoding-type=url&list-type=2&max-keys=1", goldenDate,
			"GET\n\n\nMon, 23 Nov 2026 04:00:10 GMT\n/bkt-one/?continuation-token=c3RyZWFt",
			"jMeQPzHNVaC7vRdKEsKdUXbnay0=", headers(),
		},
		{
			"delete several", "POST", "", "delete&encoding-type=url", goldenDate,
			"POST\nq8SalkxjKTQrXL0nlcPkyA==\napplication/xml\nMon, 23 Nov 2026 04:00:10 GMT\n/bkt-one/?delete",
			"W6gehiSmDDGwXbUPAgP5keSC2aY=", headers("Content-Md5", "q8SalkxjKTQrXL0nlcPkyA==", "Content-Type", "application/xml"),
		},
		{
			"presigned with token", "GET", goldenKey,
			"Expires=1795407010&OSSAccessKeyId=AKTEST&Signature=mjl3Urka%2FfiKiMPAVFO1YdK87%2Bg%3D&response-content-type=text%2Fx%20y&security-token=STSTOKEN%3D%3D",
			"1795407010",
			"GET\n\n\n1795407010\n/bkt-one/wal/a b+c~(1)'é/000000010000000000000001?response-content-type=text/x y&security-token=STSTOKEN==",
			"mjl3Urka/fiKiMPAVFO1YdK87+g=", headers(),
		},
	} {
		t.Run(v.name, func(t *testing.T) {
			r := signedRequest{method: v.method, bucket: "bkt-one", key: v.key, query: mustQuery(t, v.query), header: v.header}
			text := stringToSignV1(r, v.date)
			if text != v.text {
				t.Errorf("string to sign:\n got %q\nwant %q", text, v.text)
			}
			if got := signV1(goldenSecret, text); got != v.signature {
				t.Errorf("signature %s, want %s", got, v.signature)
			}
		})
	}
}

type vectorV4 struct {
	name, method, bucket, key, query, timestamp string
	additional                                  string
	header                                      http.Header
	host, length                                string
	canonical, hash, signature                  string
}

func vectorsV4() []vectorV4 {
	put := []string{
		"Content-Type", octets, "X-Oss-Content-Sha256", unsigned, "X-Oss-Forbid-Overwrite", "true", "X-Oss-Meta-Lsn", "0/1",
	}
	v2 := []string{"X-Oss-Content-Sha256", unsigned, "X-Oss-Date", goldenISO}
	with := func(base []string, more ...string) http.Header {
		return headers(append(append([]string(nil), base...), more...)...)
	}
	const path = "/wal/a%20b%2Bc~%281%29%27%C3%A9/000000010000000000000001"
	return []vectorV4{
		{
			name: "sdk v1 put", method: "PUT", bucket: "bkt-one", key: goldenKey, timestamp: goldenDate, header: with(put, "X-Oss-Tagging", "k=v+w"),
			canonical: "PUT\n/bkt-one" + path + "\n\ncontent-type:application/octet-stream\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-forbid-overwrite:true\nx-oss-meta-lsn:0/1\nx-oss-tagging:k=v+w\n\n\nUNSIGNED-PAYLOAD",
			hash:      "88c78ee51c31d30d6e3a0c820b976bba9b031d3b74e825dae2361378ad4e1010",
			signature: "319fd2fe2f0925619a68dc50cfdc488ad3debdf6d09eff2f5c15413371dd984d",
		},
		{
			name: "sdk v1 append", method: "POST", bucket: "bkt-one", key: "app/x", query: "append&position=0", timestamp: goldenDate,
			header:    headers("Content-Type", octets, "X-Oss-Content-Sha256", unsigned),
			canonical: "POST\n/bkt-one/app/x\nappend&position=0\ncontent-type:application/octet-stream\nx-oss-content-sha256:UNSIGNED-PAYLOAD\n\n\nUNSIGNED-PAYLOAD",
			signature: "aeb9ab49136bf3af281b40bbdc879ec138bb650a8990e91feadb25abc9c34e62",
		},
		{
			name: "sdk v1 token and additional headers", method: "PUT", bucket: "bkt-one", key: goldenKey, timestamp: goldenDate,
			additional: "content-length;host", host: "127.0.0.1:34557", length: "5",
			header:    with(put, "X-Oss-Tagging", "k=v+w", "X-Oss-Security-Token", "STSTOKEN=="),
			canonical: "PUT\n/bkt-one" + path + "\n\ncontent-length:5\ncontent-type:application/octet-stream\nhost:127.0.0.1:34557\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-forbid-overwrite:true\nx-oss-meta-lsn:0/1\nx-oss-security-token:STSTOKEN==\nx-oss-tagging:k=v+w\n\ncontent-length;host\nUNSIGNED-PAYLOAD",
			signature: "a53c18658ebc7ad7f476b0b7afb263ef4a5c1bf6b0f4cb1702fd17d644a3ac46",
		},
		{
			name: "sdk v2 put", method: "PUT", bucket: "bkt-two", key: goldenKey, timestamp: goldenISO,
			header:    with(put, "X-Oss-Tagging", "k=v%20w", "X-Oss-Date", goldenISO),
			canonical: "PUT\n/bkt-two" + path + "\n\ncontent-type:application/octet-stream\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-date:20261123T040010Z\nx-oss-forbid-overwrite:true\nx-oss-meta-lsn:0/1\nx-oss-tagging:k=v%20w\n\n\nUNSIGNED-PAYLOAD",
			hash:      "ce4c4d00df4b064571266214d0ab9a4e7a76b69ff215ea7c079ecf6ebdd42cf8",
			signature: "c5a036c23b57a14c60f94bd2bdd3a1c37143ba34270816281209bc733e77aefb",
		},
		{
			name: "sdk v2 head", method: "HEAD", bucket: "bkt-two", key: "app/x", timestamp: goldenISO, header: with(v2, "Content-Md5", emptyMD5),
			canonical: "HEAD\n/bkt-two/app/x\n\ncontent-md5:1B2M2Y8AsgTpgAmY7PhCfg==\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-date:20261123T040010Z\n\n\nUNSIGNED-PAYLOAD",
			signature: "78808b660ad8f013708de16ad3e21f2b54f4ea02ebac06a8bc49935f26a5afbd",
		},
		{
			name: "sdk v2 list with bare prefix", method: "GET", bucket: "bkt-two", query: "list-type=2&encoding-type=url&max-keys=1&prefix", timestamp: goldenISO,
			header:    with(v2, "Content-Md5", emptyMD5, "Content-Type", octets),
			canonical: "GET\n/bkt-two/\nencoding-type=url&list-type=2&max-keys=1&prefix\ncontent-md5:1B2M2Y8AsgTpgAmY7PhCfg==\ncontent-type:application/octet-stream\nx-oss-content-sha256:UNSIGNED-PAYLOAD\nx-oss-date:20261123T040010Z\n\n\nUNSIGNED-PAYLOAD",
			signature: "9c0352c211300fbe517782a4c83f229a2ef4aca8d2d25115f6c8df05defe2c24",
		},
		{
			name: "sdk v2 presigned get", method: "GET", bucket: "bkt-two", key: goldenKey, timestamp: goldenISO, header: headers(),
			query:     "response-content-type=text%2Fx%20y&x-oss-credential=AKTEST%2F20261123%2Fcn-hangzhou%2Foss%2Faliyun_v4_request&x-oss-date=20261123T040010Z&x-oss-expires=600&x-oss-signature=702869227ebe04605f8649e34ecfccf79ae99edd1b097d2162d525994a7d1a3c&x-oss-signature-version=OSS4-HMAC-SHA256",
			signature: "702869227ebe04605f8649e34ecfccf79ae99edd1b097d2162d525994a7d1a3c",
		},
	}
}

func TestSignatureV4Golden(t *testing.T) {
	for _, v := range vectorsV4() {
		t.Run(v.name, func(t *testing.T) {
			a := authorizationV4{additional: splitHeaders(v.additional)}
			if err := a.setCredential(credential); err != nil {
				t.Fatal(err)
			}
			r := signedRequest{v.method, v.bucket, v.key, mustQuery(t, v.query), v.header, v.host, v.length}
			canonical := canonicalV4(r, a.additional)
			if v.canonical != "" && canonical != v.canonical {
				t.Errorf("canonical request:\n got %q\nwant %q", canonical, v.canonical)
			}
			text := stringToSignV4(canonical, v.timestamp, a.scope())
			want := algorithmV4 + "\n" + v.timestamp + "\n20261123/cn-hangzhou/oss/aliyun_v4_request\n" + v.hash
			if v.hash != "" && text != want {
				t.Errorf("string to sign:\n got %q\nwant %q", text, want)
			}
			if got := signV4(goldenSecret, a, text); got != v.signature {
				t.Errorf("signature %s, want %s", got, v.signature)
			}
		})
	}
}

func TestParseAuthorizationV4(t *testing.T) {
	a, err := parseAuthorizationV4("Credential=" + credential + ", AdditionalHeaders=Host;content-length, Signature=ab")
	if err != nil || a.accessKeyID != goldenID || a.region != "cn-hangzhou" || a.signature != "ab" {
		t.Fatalf("%+v %v", a, err)
	}
	if got := a.additional; len(got) != 2 || got[0] != "content-length" || got[1] != "host" {
		t.Errorf("additional headers %q", got)
	}
	for _, bad := range []string{"", "Credential=" + credential + ",AdditionalHeaders=,Signature=ab", "Credential=AK/x,Signature=ab", "Foo=bar"} {
		if _, err := parseAuthorizationV4(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
