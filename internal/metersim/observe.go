package metersim

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
)

// ackRandomFactor is ACK_RANDOM_FACTOR of RFC 7252 section 4.8.
const ackRandomFactor = 1.5

// observers are the observations of /power. Each has a goroutine of its own and a queue of one: a report is state, so a newer
// one replaces one that waits, and nobody waits for a slow one.
type observers struct {
	o       Options
	ctx     context.Context
	cancel  context.CancelFunc
	running *sync.WaitGroup

	mu  sync.Mutex
	all map[observerKey]*observer
}

// observerKey is what identifies an observation, RFC 7641 section 4.1.
type observerKey struct {
	conn  *udpclient.Conn
	token string
}

type observer struct {
	observerKey
	format message.MediaType
	queue  chan *payload
	// acks takes the message ids of ACKs.
	acks   chan int32
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// mids are the message ids of the last notifications, which ACK and Reset refer to.
	mids []int32
}

// maxMids is how many notifications back a Reset is understood: those of a second at ten reports a second, and some.
const maxMids = 16

func (os *observers) init(running *sync.WaitGroup, o Options) {
	os.ctx, os.cancel = context.WithCancel(context.Background())
	os.o, os.running, os.all = o, running, map[observerKey]*observer{}
}

// register adds an observation, or replaces the one with the same key; ok is false if there is no place. It gets nothing
// before start.
func (os *observers) register(key observerKey, format message.MediaType) (o *observer, ok bool) {
	os.mu.Lock()
	defer os.mu.Unlock()
	old := os.all[key]
	// The session's context ends before closed is called, so an observation that passes here is found there.
	if old == nil && len(os.all) >= os.o.MaxObservers || key.conn.Context().Err() != nil {
		return nil, false
	}
	if old != nil {
		old.cancel()
	}
	o = &observer{observerKey: key, format: format, queue: make(chan *payload, 1), acks: make(chan int32, 4)}
	o.ctx, o.cancel = context.WithCancel(os.ctx)
	os.all[key] = o
	if old == nil {
		os.o.Log.Info("observer came", "peer", key.conn.RemoteAddr().String(), "observers", len(os.all))
	}
	return o, true
}

// start begins an observer's notifications.
func (os *observers) start(o *observer) {
	os.mu.Lock()
	defer os.mu.Unlock()
	// An observer that has gone already, or a server that stops, must not have a goroutine started.
	if os.all[o.observerKey] == o && os.ctx.Err() == nil {
		os.running.Go(func() { os.serve(o) })
	}
}

// deregister ends an observation, if it is there.
func (os *observers) deregister(key observerKey, why string) {
	os.drop(why, func(o *observer) bool { return o.observerKey == key })
}

// closed ends the observations of a session that has ended.
func (os *observers) closed(cc *udpclient.Conn) {
	os.drop("session closed", func(o *observer) bool { return o.conn == cc })
}

func (os *observers) drop(why string, which func(*observer) bool) {
	os.mu.Lock()
	defer os.mu.Unlock()
	for key, o := range os.all {
		if which(o) {
			o.cancel()
			delete(os.all, key)
			os.o.Log.Info("observer left", "peer", key.conn.RemoteAddr().String(), "why", why, "observers", len(os.all))
		}
	}
}

// end stops all observers' goroutines; none is started afterwards.
func (os *observers) end() {
	os.mu.Lock()
	defer os.mu.Unlock()
	os.cancel()
}

// count returns the number of observations.
func (os *observers) count() int {
	os.mu.Lock()
	defer os.mu.Unlock()
	return len(os.all)
}

// notify gives all observers a report. It never blocks.
func (os *observers) notify(p *payload) {
	os.mu.Lock()
	defer os.mu.Unlock()
	for _, o := range os.all {
		select {
		case <-o.queue:
		default:
		}
		o.queue <- p // There is a place: nobody else puts anything in.
	}
}

// serve sends an observer its notifications until it is gone.
//
// Most are NON. One in a while is a CON, which finds out who is dead. NON go on while it waits for its ACK: to hold them back
// would stall the stream for seconds at each loss, and there is never more than one CON (NSTART, RFC 7252 section 4.7).
func (os *observers) serve(o *observer) {
	confirmed := time.Now()
	var con struct {
		p       *payload // nil if none waits
		mid     int32
		resent  int
		timeout time.Duration
	}
	retransmit := time.NewTimer(0)
	<-retransmit.C
	defer retransmit.Stop()
	for {
		var err error
		select {
		case <-o.ctx.Done():
			return
		case mid := <-o.acks:
			if con.p != nil && mid == con.mid {
				con.p = nil
				retransmit.Stop()
			}
		case <-retransmit.C:
			// RFC 7252 section 4.2.
			if con.resent == os.o.MaxRetransmit {
				os.drop("does not acknowledge", func(other *observer) bool { return other == o })
				return
			}
			con.resent++
			con.timeout *= 2
			retransmit.Reset(con.timeout)
			err = o.send(con.p, message.Confirmable, con.mid)
		case p := <-o.queue:
			typ, mid := message.NonConfirmable, o.conn.GetMessageID()
			if now := time.Now(); con.p == nil && now.Sub(confirmed) >= os.o.ConfirmEvery {
				typ, confirmed = message.Confirmable, now
				con.p, con.mid, con.resent = p, mid, 0
				con.timeout = time.Duration(float64(os.o.AckTimeout) * (1 + rand.Float64()*(ackRandomFactor-1)))
				retransmit.Reset(con.timeout)
			}
			o.remember(mid)
			err = o.send(p, typ, mid)
		}
		if err != nil {
			os.drop("cannot be sent to", func(other *observer) bool { return other == o })
			return
		}
	}
}

// blockSize is the size of the largest block, and largestBlock its number in a Block option (RFC 7959 section 2.2).
const (
	blockSize    = 1024
	largestBlock = 6
)

// send sends a notification. It goes past the session's own block-wise transfer and retransmission, which give a message an id
// of their own, so that a Reset could not be told from others. Of a body beyond one block, which only JSON has, the first is
// sent, and the peer asks for the others (RFC 7959 section 2.6).
func (o *observer) send(p *payload, typ message.Type, mid int32) error {
	body, err := p.body(o.format)
	if err != nil {
		return err
	}
	m := o.conn.AcquireMessage(o.ctx)
	defer o.conn.ReleaseMessage(m)
	m.SetType(typ)
	m.SetMessageID(mid)
	m.SetCode(codes.Content)
	m.SetToken(message.Token(o.token))
	m.SetObserve(p.observe())
	m.SetContentFormat(o.format)
	if len(body) > blockSize {
		const more = 1 << 3
		m.SetOptionUint32(message.Block2, largestBlock|more)
		m.SetOptionBytes(message.ETag, p.etag())
		body = body[:blockSize]
	}
	m.SetBody(bytes.NewReader(body))
	return o.conn.Session().WriteMessage(m)
}

func (o *observer) remember(mid int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mids) == maxMids {
		o.mids = slices.Delete(o.mids, 0, 1)
	}
	o.mids = append(o.mids, mid)
}

func (o *observer) sent(mid int32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(o.mids, mid)
}

// watch sees each message from a peer before it is processed. An ACK ends a CON's wait; a Reset, which has the message id of a
// notification, ends its observation (RFC 7641 section 3.6).
func (os *observers) watch(cc *udpclient.Conn, m *pool.Message) (drop bool, err error) {
	switch m.Type() {
	case message.Reset:
		os.drop("reset", func(o *observer) bool { return o.conn == cc && o.sent(m.MessageID()) })
	case message.Acknowledgement:
		os.mu.Lock()
		defer os.mu.Unlock()
		for key, o := range os.all {
			if key.conn == cc {
				select {
				case o.acks <- m.MessageID():
				default: // Lost, as an ACK may be.
				}
			}
		}
	case message.Confirmable, message.NonConfirmable, message.Unset:
	}
	return false, nil
}
