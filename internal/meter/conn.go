package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	piondtls "github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	coapdtls "github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/net/blockwise"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/plgd-dev/go-coap/v3/udp/client"

	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// Endpoint is where a meter is and what opens it.
type Endpoint struct {
	// URL is coaps://HOST[:PORT], or coap://HOST[:PORT] without any protection, which is refused beyond loopback.
	URL string
	// Identity and Key are the DTLS pre-shared key (RFC 4279).
	Identity string
	Key      []byte
}

// ErrKey says that the meter refuses what we offer; trying again does not help until somebody changes the configuration.
var ErrKey = errors.New("the meter and this agent share no cipher suite or key")

// address checks the endpoint and returns HOST:PORT and whether it is protected.
func (e Endpoint) address() (addr string, secure bool, err error) {
	u, err := url.Parse(e.URL)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return "", false, fmt.Errorf("meter URL %q: write coaps://HOST or coaps://HOST:PORT", e.URL)
	}
	port := u.Port()
	switch u.Scheme {
	case "coaps":
		if len(e.Key) == 0 {
			return "", false, fmt.Errorf("meter %s: no key; give psk_file, made by wattctl meter provision", e.URL)
		}
		if port == "" {
			port = "5684"
		}
		return net.JoinHostPort(u.Hostname(), port), true, nil
	case "coap":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return "", false, fmt.Errorf("meter URL %q: plain CoAP is for tests on loopback; use coaps", e.URL)
		}
		if port == "" {
			port = "5683"
		}
		return net.JoinHostPort(u.Hostname(), port), false, nil
	default:
		return "", false, fmt.Errorf("meter URL %q: the scheme must be coaps", e.URL)
	}
}

// Conn is one session with a meter. Requests wait for one another.
type Conn struct {
	cc  *client.Conn
	url string
}

// Dial opens a session; ctx bounds the handshake and nothing after it.
func Dial(ctx context.Context, e Endpoint) (*Conn, error) {
	addr, secure, err := e.address()
	if err != nil {
		return nil, err
	}
	udpConn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.URL, err)
	}
	opts := []udp.Option{
		// Answers above one block, which only /meter and JSON can be.
		options.WithBlockwise(true, blockwise.SZX1024, 5*time.Second),
		// go-coap's own hook prints to stdout; what matters comes back as an error of the request or ends the session.
		options.WithErrors(func(error) {}),
		// The shortest ACK_TIMEOUT of RFC 7252 section 4.8.1, and looked at often enough to mean it: go-coap's own runner
		// looks every 4 s.
		options.WithTransmission(1, time.Second, 4),
		options.WithPeriodicRunner(every(250 * time.Millisecond)),
		options.WithCloseSocket(),
	}
	if !secure {
		return &Conn{cc: udp.Client(udpConn.(*net.UDPConn), opts...), url: e.URL}, nil
	}
	// The handshake is run here and not left to the first request: go-coap would run it under the lock that all its
	// goroutines then wait for, and a request that gives up does not end it.
	conn, err := piondtls.ClientWithOptions(dtlsnet.PacketConnFromConn(udpConn), udpConn.RemoteAddr(),
		piondtls.WithPSK(func([]byte) ([]byte, error) { return e.Key, nil }),
		piondtls.WithPSKIdentityHint([]byte(e.Identity)),
		// The suite every CoAP peer has (RFC 7252 section 9.1.3.1); pion's defaults hold none for keys.
		piondtls.WithCipherSuites(piondtls.TLS_PSK_WITH_AES_128_CCM_8),
		// A meter that comes back answers at the next quarter of a second, not at the next power of two seconds. RFC 6347
		// section 4.2.4.1 allows shorter timers where time matters; here it is one small flight. Through a path that loses three
		// datagrams in ten each way, half a second had one handshake in twenty with libcoap take more than 20 s.
		piondtls.WithDisableRetransmitBackoff(true), piondtls.WithFlightInterval(250*time.Millisecond),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", e.URL, err), udpConn.Close())
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // there is nothing to close in order
		_ = udpConn.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s: no answer: it is off, out of reach, or has another key or identity: %w", e.URL, context.DeadlineExceeded)
		}
		return nil, fmt.Errorf("%s: %w", e.URL, explain(err))
	}
	return &Conn{cc: coapdtls.Client(conn, opts...), url: e.URL}, nil
}

// every runs go-coap's upkeep of one connection until the connection is closed.
func every(d time.Duration) func(func(now time.Time) bool) {
	return func(upkeep func(now time.Time) bool) {
		go func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for now := range tick.C {
				if !upkeep(now) {
					return
				}
			}
		}()
	}
}

// Close ends the session.
func (c *Conn) Close() error { return c.cc.Close() }

// get fetches a resource's payload. A 4.xx or 5.xx answer is a *wire.MeterError.
func (c *Conn) get(ctx context.Context, path string, opts ...message.Option) ([]byte, error) {
	m, err := c.cc.Get(ctx, path, opts...)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", c.url, path, explain(err))
	}
	defer c.cc.ReleaseMessage(m)
	body, err := payload(m)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", c.url, path, err)
	}
	return body, nil
}

// payload returns a copy of a message's payload, or what the meter gives as the reason for having none.
func payload(m *pool.Message) ([]byte, error) {
	var body []byte
	if r := m.Body(); r != nil { // nil in a notification that ends an observation
		var err error
		if body, err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
	if m.Code() != codes.Content {
		e := wire.UnmarshalError(body)
		if len(body) == 0 {
			e.Message = m.Code().String()
		}
		return nil, e
	}
	return body, nil
}

// explain says in our words what the libraries mean.
func explain(err error) error {
	var shake *piondtls.HandshakeError
	var alert interface{ IsFatalOrCloseNotify() bool } // pion does not export its alert
	switch {
	case errors.As(err, &shake) && errors.As(err, &alert):
		return fmt.Errorf("%w (%w)", ErrKey, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens there: %w", syscall.ECONNREFUSED)
	default:
		return err
	}
}

// Identity asks for the meter's identity.
func (c *Conn) Identity(ctx context.Context) (*meterpb.Identity, error) {
	b, err := c.get(ctx, wire.PathMeter)
	if err != nil {
		return nil, err
	}
	id := new(meterpb.Identity)
	return id, wire.UnmarshalIdentity(b, id)
}

// Time asks for the meter's clock.
func (c *Conn) Time(ctx context.Context) (*meterpb.Time, error) {
	b, err := c.get(ctx, wire.PathTime)
	if err != nil {
		return nil, err
	}
	t := new(meterpb.Time)
	return t, wire.UnmarshalTime(b, t)
}

// Samples asks for the batches from report seq on. With wire.ErrBatch the good ones are in the list.
func (c *Conn) Samples(ctx context.Context, seq uint32) (*meterpb.SampleList, error) {
	b, err := c.get(ctx, wire.PathSamples,
		message.Option{ID: message.URIQuery, Value: fmt.Appendf(nil, "from=%d", seq)})
	if err != nil {
		return nil, err
	}
	l := new(meterpb.SampleList)
	if err = wire.UnmarshalSampleList(b, l); err != nil && !errors.Is(err, wire.ErrBatch) {
		return nil, err
	}
	return l, err
}

// Resources asks what the meter offers (/.well-known/core, RFC 6690).
func (c *Conn) Resources(ctx context.Context) (string, error) {
	b, err := c.get(ctx, "/.well-known/core")
	return string(b), err
}

// observe asks for a report now and each one to come. handle gets every payload, or the error that ends the observation, one at
// a time; it runs on the connection's reader and must be quick, and may not keep the payload.
func (c *Conn) observe(ctx context.Context, handle func(body []byte, err error)) error {
	var mu sync.Mutex // go-coap may bring the first answer and the first notification at once
	var buf bytes.Buffer
	_, err := c.cc.Observe(ctx, wire.PathPower, func(m *pool.Message) {
		mu.Lock()
		defer mu.Unlock()
		if m.Code() != codes.Content || m.Body() == nil {
			_, err := payload(m)
			handle(nil, err)
			return
		}
		buf.Reset()
		if _, err := buf.ReadFrom(m.Body()); err != nil {
			handle(nil, err)
			return
		}
		handle(buf.Bytes(), nil)
	})
	if err != nil {
		return fmt.Errorf("%s%s: %w", c.url, wire.PathPower, explain(err))
	}
	return nil
}
