package wire

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// BodyJSON renders a message as a meter does for Accept 50. It is JSON's form, but a report that would pass MaxBody has the fault
// counts of all channels in one sum. The firmware makes the same bytes.
func BodyJSON(m proto.Message) ([]byte, error) {
	b, err := JSON(m)
	r, ok := m.(*meterpb.Report)
	if err != nil || !ok || len(b) <= MaxBody {
		return b, err
	}
	v := newReportJSON(r)
	v.Faults = new(faultsJSON)
	for i := range v.Channels {
		c := &v.Channels[i]
		v.Faults.UnmeasuredUs += c.UnmeasuredUs
		v.Faults.Saturated += c.Saturated
		v.Faults.SensorErrors += c.SensorErrors
		c.UnmeasuredUs, c.Saturated, c.SensorErrors = 0, 0, 0
	}
	return json.Marshal(v)
}

// JSON renders a message for people: the field names of meter.proto, numbers as numbers, fault counts only where there are any,
// and no batch, so that a report of six channels still fits one block.
func JSON(m proto.Message) ([]byte, error) {
	switch m := m.(type) {
	case *meterpb.Report:
		return json.Marshal(newReportJSON(m))
	case *meterpb.Identity:
		v := identityJSON{
			BootID: m.BootId, WireRevision: m.WireRevision, Name: m.Name, Serial: m.Serial, Hardware: m.Hardware,
			FirmwareVersion: m.FirmwareVersion, TUs: m.TUs, MaxObservers: m.MaxObservers, Capabilities: []string{},
			Sampling: samplingJSON{
				SweepPeriodUs:     m.Sampling.GetSweepPeriodUs(),
				ShuntConversionUs: m.Sampling.GetShuntConversionUs(),
				BusConversionUs:   m.Sampling.GetBusConversionUs(),
				Averaging:         m.Sampling.GetAveraging(),
				ReportIntervalUs:  m.Sampling.GetReportIntervalUs(),
				RingUs:            m.Sampling.GetRingUs(),
			},
		}
		for _, c := range m.Channels {
			v.Channels = append(v.Channels, channelInfoJSON{
				Channel: c.Channel, Name: c.Name, ShuntUohm: c.ShuntUohm, GainPPM: c.GainPpm, OffsetNV: c.OffsetNv,
				CountNV: c.CountNv, FullScaleCounts: c.FullScaleCounts, EarlierEnergyUJ: c.EarlierEnergyUj, EarlierChargeUC: c.EarlierChargeUc,
			})
		}
		for _, c := range m.Capabilities {
			v.Capabilities = append(v.Capabilities, c.String())
		}
		return json.Marshal(v)
	case *meterpb.Time:
		return json.Marshal(timeJSON{BootID: m.BootId, ReceivedUs: m.ReceivedUs, SentUs: m.SentUs})
	case *meterpb.SampleList:
		v := sampleListJSON{BootID: m.BootId, Next: m.Next, Batches: []batchJSON{}}
		for _, b := range m.Batches {
			j := batchJSON{Seq: b.Seq, TUs: b.TUs, Sweeps: b.Sweeps, SamplePeriodUs: b.Batch.GetSamplePeriodUs()}
			for _, c := range b.Batch.GetChannels() {
				s, err := Samples(nil, b, c.Channel)
				if err != nil {
					return nil, err
				}
				counts := make([]int32, 0, len(s))
				for _, s := range s {
					counts = append(counts, s.Count)
				}
				j.Channels = append(j.Channels, countsJSON{Channel: c.Channel, Counts: counts, Missing: c.Missing})
			}
			v.Batches = append(v.Batches, j)
		}
		return json.Marshal(v)
	case *meterpb.Error:
		return json.Marshal(errorJSON{Code: m.Code.String(), Message: m.Message, RetryAfterMs: m.RetryAfterMs})
	default:
		return nil, fmt.Errorf("no JSON form for %T", m)
	}
}

func newReportJSON(m *meterpb.Report) reportJSON {
	v := reportJSON{BootID: m.BootId, Seq: m.Seq, TUs: m.TUs, Sweeps: m.Sweeps}
	for _, c := range m.Channels {
		v.Channels = append(v.Channels, channelJSON{
			Channel: c.Channel, EnergyUJ: c.EnergyUj, ChargeUC: c.ChargeUc,
			PowerUW: c.PowerUw, VoltageUV: c.VoltageUv, CurrentUA: c.CurrentUa,
			UnmeasuredUs: c.UnmeasuredUs, Saturated: c.Saturated, SensorErrors: c.SensorErrors,
		})
	}
	return v
}

type reportJSON struct {
	BootID   uint32        `json:"boot_id"`
	Seq      uint32        `json:"seq"`
	TUs      uint64        `json:"t_us"`
	Sweeps   uint64        `json:"sweeps"`
	Faults   *faultsJSON   `json:"faults,omitempty"`
	Channels []channelJSON `json:"channels"`
}

type faultsJSON struct {
	UnmeasuredUs uint64 `json:"unmeasured_us"`
	Saturated    uint64 `json:"saturated"`
	SensorErrors uint64 `json:"sensor_errors"`
}

type channelJSON struct {
	Channel      uint32 `json:"channel"`
	EnergyUJ     int64  `json:"energy_uj"`
	ChargeUC     int64  `json:"charge_uc"`
	PowerUW      int64  `json:"power_uw"`
	VoltageUV    int64  `json:"voltage_uv"`
	CurrentUA    int64  `json:"current_ua"`
	UnmeasuredUs uint64 `json:"unmeasured_us,omitempty"`
	Saturated    uint64 `json:"saturated,omitempty"`
	SensorErrors uint64 `json:"sensor_errors,omitempty"`
}

type identityJSON struct {
	BootID          uint32            `json:"boot_id"`
	WireRevision    uint32            `json:"wire_revision"`
	Name            string            `json:"name"`
	Serial          string            `json:"serial"`
	Hardware        string            `json:"hardware"`
	FirmwareVersion string            `json:"firmware_version"`
	TUs             uint64            `json:"t_us"`
	MaxObservers    uint32            `json:"max_observers"`
	Capabilities    []string          `json:"capabilities"`
	Sampling        samplingJSON      `json:"sampling"`
	Channels        []channelInfoJSON `json:"channels"`
}

type samplingJSON struct {
	SweepPeriodUs     uint32 `json:"sweep_period_us"`
	ShuntConversionUs uint32 `json:"shunt_conversion_us"`
	BusConversionUs   uint32 `json:"bus_conversion_us"`
	Averaging         uint32 `json:"averaging"`
	ReportIntervalUs  uint32 `json:"report_interval_us"`
	RingUs            uint32 `json:"ring_us"`
}

type channelInfoJSON struct {
	Channel         uint32 `json:"channel"`
	Name            string `json:"name"`
	ShuntUohm       uint32 `json:"shunt_uohm"`
	GainPPM         int32  `json:"gain_ppm"`
	OffsetNV        int32  `json:"offset_nv"`
	CountNV         uint32 `json:"count_nv"`
	FullScaleCounts uint32 `json:"full_scale_counts"`
	EarlierEnergyUJ int64  `json:"earlier_energy_uj"`
	EarlierChargeUC int64  `json:"earlier_charge_uc"`
}

type timeJSON struct {
	BootID     uint32 `json:"boot_id"`
	ReceivedUs uint64 `json:"received_us"`
	SentUs     uint64 `json:"sent_us"`
}

type sampleListJSON struct {
	BootID  uint32      `json:"boot_id"`
	Next    uint32      `json:"next"`
	Batches []batchJSON `json:"batches"`
}

type batchJSON struct {
	Seq            uint32       `json:"seq"`
	TUs            uint64       `json:"t_us"`
	Sweeps         uint64       `json:"sweeps"`
	SamplePeriodUs uint32       `json:"sample_period_us"`
	Channels       []countsJSON `json:"channels"`
}

type countsJSON struct {
	Channel uint32   `json:"channel"`
	Counts  []int32  `json:"counts"`
	Missing []uint32 `json:"missing,omitempty"`
}

type errorJSON struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	RetryAfterMs uint32 `json:"retry_after_ms,omitempty"`
}
