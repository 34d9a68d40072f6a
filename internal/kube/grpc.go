package kube

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// gRPC, as far as unary calls one after the other need it (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md over RFC 9113):
// a preface, a frame of headers and one of data for each call, and then the answer's frames. ADR 0012 says why not the library.

// The frames, flags and settings of HTTP/2 that are known here.
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameWindow       = 8
	frameContinuation = 9

	flagEnd        = 0x1 // of a stream; of settings and pings: an acknowledgement
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	settingTable  = 1
	settingPush   = 2
	settingWindow = 4
)

const (
	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxFrame is the largest frame that may be sent to us, since we do not say otherwise.
	maxFrame = 16 << 10
	// maxAnswer bounds an answer; the window that the server may fill without asking is a little larger, so that none is ever full.
	maxAnswer = 8 << 20
	// maxCalls bounds the calls on a connection, whose window is never opened again; a poll makes one per new function.
	maxCalls = 1 << 10
	// maxHeaders bounds the headers of an answer.
	maxHeaders = 64 << 10
)

// grpcConn is a connection on which calls are made, one at a time.
type grpcConn struct {
	conn   net.Conn
	r      *bufio.Reader
	stream uint32
	header [9]byte
	frame  [maxFrame]byte
}

// newGRPC begins to speak on a connection, for as long as ctx has time.
func newGRPC(ctx context.Context, conn net.Conn) (*grpcConn, error) {
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(at); err != nil {
			return nil, err
		}
	}
	g := &grpcConn{conn: conn, r: bufio.NewReaderSize(conn, 4<<10), stream: 1}
	b := []byte(http2Preface)
	var s []byte
	for _, v := range [...][2]uint32{{settingTable, 0}, {settingPush, 0}, {settingWindow, maxAnswer + maxFrame}} {
		s = binary.BigEndian.AppendUint16(s, uint16(v[0]))
		s = binary.BigEndian.AppendUint32(s, v[1])
	}
	b = appendFrame(b, frameSettings, 0, 0, s)
	b = appendFrame(b, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<30)) // of the whole connection
	_, err := conn.Write(b)
	return g, err
}

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// appendField appends a header as a literal that is not to be indexed, without Huffman coding (RFC 7541, 6.2.2). Names and values here
// are short.
func appendField(b []byte, name, value string) []byte {
	b = append(b, 0, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(value)))
	return append(b, value...)
}

// call makes one call and returns the answer's message.
func (g *grpcConn) call(method string, message []byte) ([]byte, error) {
	name := method[strings.LastIndexByte(method, '/')+1:]
	if g.stream > 2*maxCalls || len(message) > maxFrame/2 {
		return nil, fmt.Errorf("%s: too much for one connection", name)
	}
	var h []byte
	for _, f := range [...][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "wattlet"},
	} {
		h = appendField(h, f[0], f[1])
	}
	b := appendFrame(nil, frameHeaders, flagEndHeaders, g.stream, h)
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	b = appendFrame(b, frameData, flagEnd, g.stream, append(body, message...))
	if _, err := g.conn.Write(b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	answer, err := g.answer(g.stream)
	g.stream += 2
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return answer, nil
}

var (
	errFrame  = errors.New("the answer is not gRPC")
	errAnswer = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
)

// answer reads frames until the stream ends.
func (g *grpcConn) answer(stream uint32) (message []byte, err error) {
	var body, headers []byte
	status := map[string]string{}
	open, ending := false, false // within headers, which may go on in further frames; the stream ends with them
	for {
		kind, flags, id, payload, err := g.read()
		if err != nil {
			return nil, err
		}
		if open && (kind != frameContinuation || id != stream) {
			return nil, errFrame
		}
		switch kind {
		case frameSettings, framePing:
			if err := g.acknowledge(kind, flags, payload); err != nil {
				return nil, err
			}
			continue
		case frameGoAway:
			return nil, errors.New("the server ends the connection")
		case frameReset:
			if id == stream {
				return nil, errors.New("the server ends the call")
			}
			continue
		case frameData, frameHeaders, frameContinuation:
			if id != stream {
				return nil, errFrame
			}
		default:
			continue
		}
		end := flags&flagEnd != 0 && kind != frameContinuation
		if kind == frameData {
			if payload, err = unpad(payload, flags, 0); err != nil {
				return nil, err
			}
			if body = append(body, payload...); len(body) > maxAnswer {
				return nil, errAnswer
			}
		} else {
			if kind == frameHeaders {
				skip := 0
				if flags&flagPriority != 0 {
					skip = 5
				}
				if payload, err = unpad(payload, flags, skip); err != nil {
					return nil, err
				}
				headers, ending = headers[:0], end
			} else if !open {
				return nil, errFrame
			}
			if headers = append(headers, payload...); len(headers) > maxHeaders {
				return nil, errFrame
			}
			if open = flags&flagEndHeaders == 0; open {
				continue
			}
			if err := readHeaders(headers, status); err != nil {
				return nil, err
			}
			end = ending
		}
		if end {
			return finish(status, body)
		}
	}
}

// read reads one frame. The payload is valid until the next.
func (g *grpcConn) read() (kind, flags byte, stream uint32, payload []byte, err error) {
	if _, err = io.ReadFull(g.r, g.header[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	h := &g.header
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > maxFrame {
		return 0, 0, 0, nil, errFrame
	}
	payload = g.frame[:n]
	_, err = io.ReadFull(g.r, payload)
	return h[3], h[4], binary.BigEndian.Uint32(h[5:]) & 0x7fffffff, payload, err
}

// acknowledge answers settings and pings.
func (g *grpcConn) acknowledge(kind, flags byte, payload []byte) error {
	if flags&flagEnd != 0 {
		return nil
	}
	if kind == frameSettings {
		payload = nil
	} else if len(payload) != 8 {
		return errFrame
	}
	_, err := g.conn.Write(appendFrame(nil, kind, flagEnd, 0, payload))
	return err
}

// unpad takes off what surrounds a payload (RFC 9113, 6.1 and 6.2).
func unpad(b []byte, flags byte, skip int) ([]byte, error) {
	if flags&flagPadded != 0 {
		if len(b) == 0 || int(b[0]) >= len(b) {
			return nil, errFrame
		}
		b = b[1 : len(b)-int(b[0])]
	}
	if len(b) < skip {
		return nil, errFrame
	}
	return b[skip:], nil
}

// readHeaders takes what tells how a call went from a block of headers. We allow no table, so that each block stands for itself.
func readHeaders(block []byte, into map[string]string) error {
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status", "grpc-status", "grpc-message", "grpc-encoding":
			into[f.Name] = f.Value
		}
	})
	d.SetMaxStringLength(maxHeaders)
	if _, err := d.Write(block); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// finish returns the message of an answer, or what the server says of the call.
func finish(status map[string]string, body []byte) ([]byte, error) {
	if s := status[":status"]; s != "200" {
		return nil, fmt.Errorf("%w: HTTP status %.20q", errFrame, s)
	}
	if s := status["grpc-status"]; s != "0" {
		text, err := url.PathUnescape(status["grpc-message"])
		if err != nil {
			text = status["grpc-message"]
		}
		return nil, fmt.Errorf("status %.20q: %.300q", s, text)
	}
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return nil, errFrame
	}
	return body[5:], nil
}
