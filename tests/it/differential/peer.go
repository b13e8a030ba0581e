// Go's own server and client (net/http), in HTTP/1.1 and HTTP/2.
//
//	peer serve CERTIFICATE KEY    prints the plain server's port and the TLS one's
//	peer ask URL COUNT SEED CA    sends so many requests, a few at once; says what went wrong
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Sends the body back: all at once, in pieces, before it has read it, or with trailers.
func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Asked", r.URL.RawQuery)
	flusher := w.(http.Flusher)
	switch r.URL.Query().Get("way") {
	case "early":
		w.Header().Set("Content-Length", "5")
		_, _ = w.Write([]byte("early"))
		flusher.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	case "pieces":
		piece := make([]byte, 1000)
		w.Header().Set("Trailer", "X-End")
		// both ways at once is HTTP/2's alone here
		if r.ProtoMajor == 1 {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		for {
			n, err := r.Body.Read(piece)
			_, _ = w.Write(piece[:n])
			flusher.Flush()
			if err == io.EOF {
				break
			} else if err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		w.Header().Set("X-End", r.URL.RawQuery)
	default:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	}
}

func serve(certificate, key string) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	handler := http.HandlerFunc(answer)
	go func() { check(http.Serve(plain, handler)) }()
	go func() { check(http.ServeTLS(secure, handler, certificate, key)) }()
	fmt.Println(plain.Addr().(*net.TCPAddr).Port, secure.Addr().(*net.TCPAddr).Port)
	// until whoever began it goes
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func one(client *http.Client, url string, number int, dice *rand.Rand) error {
	way := []string{"whole", "pieces", "early"}[dice.Intn(3)]
	body := make([]byte, []int{0, 1, 100, 5000, 70000}[dice.Intn(5)])
	dice.Read(body)
	var send io.Reader = bytes.NewReader(body)
	if dice.Intn(2) == 0 {
		// without a length
		send = io.MultiReader(send)
	}
	query := fmt.Sprintf("way=%s&number=%d", way, number)
	request, err := http.NewRequest("POST", url+"?"+query, send)
	if err != nil {
		return err
	}
	// (Go 1.19 never ends a request in HTTP/2 that has trailers and no body)
	if dice.Intn(4) == 0 && len(body) > 0 {
		request.ContentLength = -1
		request.Trailer = http.Header{"X-Late": {"1"}}
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("%s with %d bytes: %w", way, len(body), err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s with %d bytes, the answer: %w", way, len(body), err)
	}
	if way == "early" {
		body = []byte("early")
	}
	if response.StatusCode != 200 || response.Header.Get("X-Asked") != query || !bytes.Equal(got, body) {
		return fmt.Errorf("%s: %d, asked %q, %d bytes of %d", query, response.StatusCode, response.Header.Get("X-Asked"), len(got), len(body))
	}
	return nil
}

func ask(url string, count int, seed int64, authority string) {
	pem, err := os.ReadFile(authority)
	check(err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		check(errors.New("no authority"))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	var group sync.WaitGroup
	var lock sync.Mutex
	failed := 0
	for at := 0; at < 8; at++ {
		group.Add(1)
		go func(at int) {
			defer group.Done()
			dice := rand.New(rand.NewSource(seed*1000 + int64(at)))
			for number := at; number < count; number += 8 {
				if err := one(client, url, number, dice); err != nil {
					lock.Lock()
					failed++
					if failed <= 5 {
						fmt.Println(err)
					}
					lock.Unlock()
				}
			}
		}(at)
	}
	group.Wait()
	fmt.Println(failed, "of", count, "failed")
	if failed > 0 {
		os.Exit(1)
	}
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3])
		return
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	seed, err := strconv.ParseInt(os.Args[4], 10, 64)
	check(err)
	ask(os.Args[2], count, seed, os.Args[5])
}
