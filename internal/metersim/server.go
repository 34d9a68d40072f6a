package metersim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
	coapdtls "github.com/plgd-dev/go-coap/v3/dtls/server"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
	"github.com/plgd-dev/go-coap/v3/net/monitor/inactivity"
	"github.com/plgd-dev/go-coap/v3/net/responsewriter"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// pathCore is the path of resource discovery, RFC 6690 section 4; its format is a list of links.
const (
	pathCore = "/.well-known/core"
	links    = `</meter>;rt="wattlet.meter.v1.Identity";ct="42 50",` +
		`</power>;rt="wattlet.meter.v1.Report";ct="42 50";obs,` +
		`</samples>;rt="wattlet.meter.v1.SampleList";ct="42 50",` +
		`</time>;rt="wattlet.meter.v1.Time";ct="42 50"`
)

// server is the CoAP server of one boot.
type server struct {
	sim      *Sim
	o        Options
	listener *listener
	coap     *coapdtls.Server
	running  sync.WaitGroup
	observers
}

// configure makes a function an option of the CoAP server.
type configure func(*coapdtls.Config)

// DTLSServerApply implements coapdtls.Option.
func (f configure) DTLSServerApply(c *coapdtls.Config) { f(c) }

// serve starts a server on the socket; stop ends it.
func (s *Sim) serve() (*server, error) {
	srv := &server{sim: s, o: s.o}
	srv.observers.init(&srv.running, s.o)
	hello := func([]byte) bool { return true }
	if !s.o.Insecure {
		hello = isClientHello
	}
	srv.listener = s.socket.listen(hello, s.o.MaxPeers)
	var l coapdtls.Listener = srv.listener
	if !s.o.Insecure {
		secure, err := dtls.NewListenerWithOptions(srv.listener, s.dtlsOptions()...)
		if err != nil {
			srv.end()
			return nil, fmt.Errorf("start DTLS: %w", err)
		}
		l = secureListener{secure}
	}
	srv.coap = coapdtls.New(configure(func(c *coapdtls.Config) {
		c.Handler = srv.handle
		c.RequestMonitor = srv.watch
		c.OnNewConn = func(cc *udpclient.Conn) { cc.AddOnClose(func() { srv.closed(cc) }) }
		c.Errors = func(err error) { s.o.Log.Debug("peer failed", "err", err) }
		c.CreateInactivityMonitor = func() udpclient.InactivityMonitor {
			return inactivity.New(s.o.IdleTimeout, func(cc *udpclient.Conn) { _ = cc.Close() })
		}
		c.HandshakeTimeout = s.o.HandshakeTimeout
		c.TransmissionAcknowledgeTimeout = s.o.AckTimeout
		c.TransmissionMaxRetransmit = uint32(s.o.MaxRetransmit)
		c.TransmissionAcknowledgeRandomFactor = ackRandomFactor
		c.PeriodicRunner = func(f func(time.Time) bool) {
			srv.running.Go(func() { periodically(srv.ctx, min(s.o.AckTimeout/4, time.Second/2), f) })
		}
	}))
	srv.running.Go(func() {
		if err := srv.coap.Serve(l); err != nil {
			s.o.Log.Error("cannot serve CoAP", "err", err)
		}
	})
	return srv, nil
}

// stop closes all sessions and waits for everything that serve started. With cut nothing is sent any more.
func (srv *server) stop(cut bool) {
	if cut {
		srv.listener.mute.Store(true)
	}
	srv.end()
	srv.coap.Stop()
	_ = srv.listener.Close()
	srv.running.Wait()
}

func periodically(ctx context.Context, every time.Duration, f func(time.Time) bool) {
	t := time.NewTicker(max(every, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			if !f(now) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sim) dtlsOptions() []dtls.ServerOption {
	return []dtls.ServerOption{
		// CCM_8 is mandatory in RFC 7252 section 9.1.3.1.
		dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_CCM_8, dtls.TLS_PSK_WITH_AES_128_CCM, dtls.TLS_PSK_WITH_AES_128_GCM_SHA256),
		dtls.WithPSK(func(identity []byte) ([]byte, error) {
			if key, ok := s.o.PSK(string(identity)); ok && len(key) > 0 {
				return key, nil
			}
			// An unknown identity meets the same silence as a wrong key (RFC 4279 section 2), so nobody can try out names.
			key := make([]byte, 32)
			_, err := rand.Read(key)
			return key, err
		}),
		dtls.WithLoggerFactory(&logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}),
	}
}

// isClientHello says whether a datagram starts with an unencrypted record with the start of a ClientHello (RFC 6347 section
// 4.1, 4.2.2): nothing else from a stranger deserves state or an answer.
func isClientHello(b []byte) bool {
	const contentHandshake, clientHello = 22, 1
	return len(b) > 13+12 && b[0] == contentHandshake && b[1] == 254 && b[3] == 0 && b[4] == 0 && b[13] == clientHello
}

// secureListener makes a DTLS listener one of the CoAP server.
type secureListener struct{ net.Listener }

// AcceptWithContext implements coapdtls.Listener. The handshake comes later, in the session's own goroutine.
func (l secureListener) AcceptWithContext(ctx context.Context) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c, err := l.Accept()
	if err != nil {
		return nil, coapnet.ErrListenerIsClosed
	}
	return c, nil
}

// exchange is a request being answered.
type exchange struct {
	w      *responsewriter.ResponseWriter[*udpclient.Conn]
	r      *pool.Message
	format message.MediaType
}

// handle answers a request.
func (srv *server) handle(w *responsewriter.ResponseWriter[*udpclient.Conn], r *pool.Message) {
	received := srv.sim.clockUs()
	if r.Code() < codes.GET || r.Code() >= codes.Created {
		return // Empty messages and stray responses are not requests.
	}
	x := &exchange{w: w, r: r, format: message.AppOctets}
	accept, err := r.Accept()
	if err == nil && accept == message.AppJSON {
		x.format = message.AppJSON
	}
	acceptable := err != nil || accept == x.format
	path, _ := r.Path()
	switch {
	case path == pathCore:
		acceptable = err != nil || accept == message.AppLinkFormat
	case path != wire.PathMeter && path != wire.PathPower && path != wire.PathSamples && path != wire.PathTime:
		x.fail(codes.NotFound, meterpb.Error_CODE_NOT_FOUND, 0, "no such resource; see "+pathCore)
		return
	}
	switch {
	case r.Code() != codes.GET:
		x.fail(codes.MethodNotAllowed, meterpb.Error_CODE_BAD_REQUEST, 0, "resources can be read only, with GET")
	case !acceptable && path == pathCore:
		x.fail(codes.NotAcceptable, meterpb.Error_CODE_NOT_ACCEPTABLE, 0, "no such format; leave out Accept or ask for 40, links")
	case !acceptable:
		x.fail(codes.NotAcceptable, meterpb.Error_CODE_NOT_ACCEPTABLE, 0, "no such format; leave out Accept or ask for 50, JSON")
	case path == pathCore:
		x.set(codes.Content, message.AppLinkFormat, []byte(links))
	case path == wire.PathMeter:
		x.answer(srv.sim.identity())
	case path == wire.PathPower:
		srv.power(x)
	case path == wire.PathSamples:
		srv.samples(x)
	case path == wire.PathTime:
		sent, boot := srv.sim.clockUs(), srv.sim.BootID()
		x.answer(&meterpb.Time{BootId: boot, ReceivedUs: received, SentUs: sent})
	}
}

// power answers a request for the last report, and begins or ends its observation (RFC 7641 section 4.1).
func (srv *server) power(x *exchange) {
	p := srv.sim.latest.Load()
	if p == nil {
		x.fail(codes.ServiceUnavailable, meterpb.Error_CODE_BUSY, srv.o.ReportInterval, "no report yet")
		return
	}
	body, err := p.body(x.format)
	if err != nil {
		x.fail(codes.InternalServerError, meterpb.Error_CODE_INTERNAL, 0, err.Error())
		return
	}
	observe, err := x.r.Observe()
	key := observerKey{x.w.Conn(), string(x.r.Token())}
	switch {
	case err == nil && observe == 0:
		o, ok := srv.register(key, x.format)
		if !ok {
			x.fail(codes.ServiceUnavailable, meterpb.Error_CODE_BUSY, srv.o.ConfirmEvery,
				fmt.Sprintf("%d observers, no place left", srv.o.MaxObservers))
			return
		}
		x.set(codes.Content, x.format, body)
		x.w.Message().SetOptionBytes(message.ETag, p.etag())
		x.w.Message().SetObserve(p.observe())
		// The first notification must not overtake this answer.
		responsewriter.AfterWrite(x.r.Context(), func() { srv.start(o) })
		return
	case err == nil && observe == 1:
		srv.deregister(key, "asked")
	}
	x.set(codes.Content, x.format, body)
	x.w.Message().SetOptionBytes(message.ETag, p.etag())
}

// samples answers /samples?from=SEQ.
func (srv *server) samples(x *exchange) {
	queries, _ := x.r.Queries()
	for _, q := range queries {
		v, ok := strings.CutPrefix(q, "from=")
		if !ok {
			continue
		}
		from, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			break
		}
		body := srv.sim.samples(uint32(from))
		if x.format == message.AppOctets {
			x.set(codes.Content, x.format, body)
			return
		}
		var l meterpb.SampleList
		if err := wire.UnmarshalSampleList(body, &l); err != nil {
			x.fail(codes.InternalServerError, meterpb.Error_CODE_INTERNAL, 0, err.Error())
			return
		}
		x.answer(&l)
		return
	}
	x.fail(codes.BadRequest, meterpb.Error_CODE_BAD_REQUEST, 0, "ask /samples?from=SEQ, SEQ a whole number below 4294967296")
}

func (x *exchange) set(code codes.Code, format message.MediaType, body []byte) {
	m := x.w.Message()
	m.SetCode(code)
	m.SetContentFormat(format)
	m.SetBody(bytes.NewReader(body))
}

// answer sends a message in the format asked for.
func (x *exchange) answer(m proto.Message) {
	body, err := encode(m, x.format)
	if err != nil {
		x.fail(codes.InternalServerError, meterpb.Error_CODE_INTERNAL, 0, err.Error())
		return
	}
	x.set(codes.Content, x.format, body)
}

// fail answers with an error; retry is when asking again makes sense, 0 if it does not.
func (x *exchange) fail(code codes.Code, why meterpb.Error_Code, retry time.Duration, text string) {
	e := &meterpb.Error{Code: why, Message: text[:min(len(text), 120)], RetryAfterMs: uint32(retry.Milliseconds())}
	body, err := encode(e, x.format)
	if err != nil {
		x.w.Message().SetCode(code)
		return
	}
	x.set(code, x.format, body)
	if retry > 0 {
		// RFC 7252 section 5.9.3.4: Max-Age of a 5.03 says when to try again.
		x.w.Message().SetOptionUint32(message.MaxAge, uint32((retry+time.Second-1)/time.Second))
	}
}

func encode(m proto.Message, format message.MediaType) ([]byte, error) {
	if format == message.AppJSON {
		return wire.BodyJSON(m)
	}
	return proto.Marshal(m)
}

// payload is a report as it goes out, encoded at most once in each format however many observers there are.
type payload struct {
	seq            uint32
	protobuf, json func() ([]byte, error)
}

func newPayload(r *meterpb.Report) *payload {
	return &payload{
		seq:      r.Seq,
		protobuf: sync.OnceValues(func() ([]byte, error) { return proto.Marshal(r) }),
		json:     sync.OnceValues(func() ([]byte, error) { return wire.BodyJSON(r) }),
	}
}

func (p *payload) body(format message.MediaType) ([]byte, error) {
	if format == message.AppJSON {
		return p.json()
	}
	return p.protobuf()
}

// observe is the sequence number of the Observe option: 24 bits, RFC 7641 section 2.
func (p *payload) observe() uint32 { return p.seq & (1<<24 - 1) }

// etag tells blocks of one report from those of another.
func (p *payload) etag() []byte { return binary.BigEndian.AppendUint32(nil, p.seq) }
