// grpc-go's server and client. Messages are bytes as they are.
//
//	grpc serve                     prints the server's port, twice
//	grpc ask ADDRESS COUNT CA      one stream of so many messages up, one down, and one both ways at once
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const message = "twenty bytes of text"

type plain struct{}

func (plain) Marshal(v interface{}) ([]byte, error)      { return *v.(*[]byte), nil }
func (plain) Unmarshal(data []byte, v interface{}) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (plain) Name() string                               { return "plain" }
func (plain) String() string                             { return "plain" }

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Sends back each message that it gets; to a number, so many.
func answer(_ interface{}, stream grpc.ServerStream) error {
	text := []byte(message)
	for {
		var got []byte
		if err := stream.RecvMsg(&got); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		count, err := strconv.Atoi(string(got))
		if err != nil {
			count = 1
		}
		for ; count > 0; count-- {
			if err := stream.SendMsg(&text); err != nil {
				return err
			}
		}
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Println(port, port)
	server := grpc.NewServer(grpc.CustomCodec(plain{}), grpc.UnknownServiceHandler(answer))
	go func() { check(server.Serve(listener)) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func receive(stream grpc.ClientStream, count int) {
	for at := 0; at < count; at++ {
		var got []byte
		check(stream.RecvMsg(&got))
		if string(got) != message {
			check(fmt.Errorf("message %d is %q", at, got))
		}
	}
	var more []byte
	if err := stream.RecvMsg(&more); err != io.EOF {
		check(fmt.Errorf("behind the last message: %v", err))
	}
}

func ask(address string, count int, authority string) {
	pem, err := os.ReadFile(authority)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	trusts := credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "a.example.com"})
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(trusts), grpc.WithDefaultCallOptions(grpc.ForceCodec(plain{})))
	check(err)
	call := func() grpc.ClientStream {
		both := &grpc.StreamDesc{StreamName: "Talk", ServerStreams: true, ClientStreams: true}
		stream, err := connection.NewStream(context.Background(), both, "/app.Service/Talk")
		check(err)
		return stream
	}
	down, text := call(), []byte(strconv.Itoa(count))
	check(down.SendMsg(&text))
	check(down.CloseSend())
	up := call()
	go func() {
		text := []byte(message)
		for at := 0; at < count; at++ {
			check(up.SendMsg(&text))
		}
		check(up.CloseSend())
	}()
	receive(up, count)
	receive(down, count)
	fmt.Println("all of", count)
}

func main() {
	if os.Args[1] == "serve" {
		serve()
		return
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	ask(os.Args[2], count, os.Args[4])
}
