package metersim

import (
	"sync"
	"testing"

	"github.com/plgd-dev/go-coap/v3/message"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

func TestPayloadIsEncodedOnce(t *testing.T) {
	p := newPayload(&meterpb.Report{BootId: 1, Seq: 1<<24 + 5})
	for _, format := range []message.MediaType{message.AppOctets, message.AppJSON} {
		a, errA := p.body(format)
		b, errB := p.body(format)
		if errA != nil || errB != nil || &a[0] != &b[0] {
			t.Errorf("format %d: encoded anew, %v, %v", format, errA, errB)
		}
	}
	if p.observe() != 5 {
		t.Errorf("sequence number %d does not fit 24 bits", p.observe())
	}
}

// An observer that takes nothing holds up nobody, and finds the newest report when it comes back.
func TestNotifyNeverBlocks(t *testing.T) {
	var running sync.WaitGroup
	var os observers
	os.init(&running, Options{MaxObservers: 1}.withDefaults())
	stuck := &observer{queue: make(chan *payload, 1)}
	os.all[observerKey{}] = stuck
	for seq := range uint32(1000) {
		os.notify(&payload{seq: seq})
	}
	if p := <-stuck.queue; p.seq != 999 {
		t.Errorf("the newest report is %d", p.seq)
	}
}

func TestOnlyClientHellosBegin(t *testing.T) {
	// Record header: handshake, DTLS 1.0 as ClientHellos say, epoch 0; then message type 1.
	hello := make([]byte, 60)
	copy(hello, []byte{22, 254, 255, 0, 0})
	hello[13] = 1
	change := func(i int, b byte) []byte {
		out := append([]byte(nil), hello...)
		out[i] = b
		return out
	}
	for name, tc := range map[string]struct {
		in   []byte
		want bool
	}{
		"hello": {hello, true}, "DTLS 1.2": {change(2, 253), true}, "nothing": {nil, false}, "short": {hello[:25], false},
		"data": {change(0, 23), false}, "alert": {change(0, 21), false}, "TLS": {change(1, 3), false},
		"epoch 1": {change(4, 1), false}, "server hello": {change(13, 2), false}, "CoAP": {[]byte("\x40\x01\x00\x01\xb5power"), false},
	} {
		if got := isClientHello(tc.in); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
