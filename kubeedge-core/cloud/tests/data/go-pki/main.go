// What Go's cloudcore does with certificates, keys and tokens, by Go's own libraries: `make` prints what it would keep in
// its secrets, `check` takes what ours has kept, the way Go's cloudcore and edgecore take it.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

// The secrets' values as they are kept, and an edge's files.
type site struct {
	MadeAt  int64  `json:"madeAt"`
	CA      []byte `json:"cadata"`
	CAKey   []byte `json:"cakeydata"`
	Cert    []byte `json:"cloudcoredata"`
	Key     []byte `json:"cloudcorekeydata"`
	Token   []byte `json:"tokendata"`
	EdgeCrt string `json:"edgeCert"`
	EdgeKey string `json:"edgeKey"`
	Request []byte `json:"request,omitempty"`
}

const lifetime = time.Hour * 24 * 364 * 100

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func demand(ok bool, what string) {
	if !ok {
		must(fmt.Errorf("%s", what))
	}
}

func newKey() (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.MarshalECPrivateKey(key)
	must(err)
	return key, der
}

func block(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func leaf(ca *x509.Certificate, caKey *ecdsa.PrivateKey, public any, name pkix.Name, usage x509.ExtKeyUsage, dns []string, ips []net.IP) []byte {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: name, DNSNames: dns, IPAddresses: ips, SerialNumber: serial,
		NotBefore: time.Now().UTC(), NotAfter: time.Now().Add(lifetime),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, ca, public, caKey)
	must(err)
	return der
}

func signature(signed string, key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func token(ca, caKey []byte, expires int64) string {
	text := base64.RawURLEncoding.EncodeToString
	signed := text([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + text([]byte(fmt.Sprintf(`{"exp":%d}`, expires)))
	hash := sha256.Sum256(ca)
	return hex.EncodeToString(hash[:]) + "." + signed + "." + signature(signed, caKey)
}

func make_() {
	caKey, caKeyDER := newKey()
	template := x509.Certificate{
		SerialNumber: big.NewInt(1024), Subject: pkix.Name{CommonName: "KubeEdge"},
		NotBefore: time.Now().UTC(), NotAfter: time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, &template, &template, caKey.Public(), caKey)
	must(err)
	ca, err := x509.ParseCertificate(caDER)
	must(err)
	server, serverDER := newKey()
	edge, edgeDER := newKey()
	// The default configuration has one name, which is empty.
	kubeedge := pkix.Name{CommonName: "KubeEdge", Organization: []string{"KubeEdge"}}
	cert := leaf(ca, caKey, server.Public(), kubeedge, x509.ExtKeyUsageServerAuth, []string{""}, []net.IP{net.IPv4(127, 0, 0, 1)})
	node := pkix.Name{CommonName: "system:node:edge-1", Organization: []string{"system:nodes"}}
	crt := leaf(ca, caKey, edge.Public(), node, x509.ExtKeyUsageClientAuth, nil, nil)
	now := time.Now().Unix()
	out, err := json.MarshalIndent(site{
		MadeAt: now, CA: caDER, CAKey: caKeyDER, Cert: cert, Key: serverDER,
		Token: []byte(token(caDER, caKeyDER, now+24*3600)), EdgeCrt: string(block("CERTIFICATE", crt)),
		EdgeKey: string(block("EC PRIVATE KEY", edgeDER)),
	}, "", "  ")
	must(err)
	fmt.Println(string(out))
}

func check() {
	var in site
	must(json.NewDecoder(os.Stdin).Decode(&in))
	ca, err := x509.ParseCertificate(in.CA)
	must(err)
	caKey, err := x509.ParseECPrivateKey(in.CAKey)
	must(err)
	demand(caKey.PublicKey.Equal(ca.PublicKey), "the CA's key is not its certificate's")
	again, err := x509.MarshalECPrivateKey(caKey)
	must(err)
	demand(bytes.Equal(again, in.CAKey), "the CA's key is not written as Go writes it")
	demand(ca.SerialNumber.Int64() == 1024 && ca.Subject.CommonName == "KubeEdge" && ca.IsCA, "another CA")

	parts := strings.Split(string(in.Token), ".")
	hash := sha256.Sum256(in.CA)
	demand(len(parts) == 4 && parts[0] == hex.EncodeToString(hash[:]), "the token does not name the CA")
	demand(signature(parts[1]+"."+parts[2], in.CAKey) == parts[3], "the token is not signed by the CA's key")

	request, err := x509.ParseCertificateRequest(in.Request)
	must(err)
	demand(request.Subject.CommonName == "system:node:edge-1" && request.Subject.Organization[0] == "system:nodes", "another request")
	leaf(ca, caKey, request.PublicKey, request.Subject, x509.ExtKeyUsageClientAuth, nil, nil)

	server, err := tls.X509KeyPair(block("CERTIFICATE", in.Cert), block("PRIVATE KEY", in.Key))
	must(err)
	edge, err := tls.X509KeyPair([]byte(in.EdgeCrt), []byte(in.EdgeKey))
	must(err)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := net.Pipe()
		hub := tls.Server(ours, &tls.Config{
			Certificates: []tls.Certificate{server}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
			MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
		})
		client := tls.Client(theirs, &tls.Config{
			Certificates: []tls.Certificate{edge}, RootCAs: roots, ServerName: "127.0.0.1", MaxVersion: version,
		})
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		must(hub.Handshake())
		must(<-done)
	}
	fmt.Println("ok")
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "make" {
		make_()
	} else {
		check()
	}
}
