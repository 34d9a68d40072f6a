package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/util/compression"
)

// store is the samples on disk.
type store struct {
	*tsdb.DB

	dir  string
	lock fileutil.Releaser
	was  *tsdb.DBStats

	failed chan error // the first that writing gave
	once   sync.Once
	closed error
}

// openStore opens the samples of cfg.Dir and what the write-ahead log has of a hub that was killed.
func openStore(cfg Config, reg prometheus.Registerer) (_ *store, err error) {
	s := &store{dir: cfg.Dir, was: tsdb.NewDBStats(), failed: make(chan error, 1)}
	// The database would lock too, but only after it has removed what another one is just writing.
	if s.lock, _, err = fileutil.Flock(s.lockFile()); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("storage %s is in use by another hub; stop that one or choose another directory", cfg.Dir)
	} else if err != nil {
		return nil, fmt.Errorf("lock storage: %w", err)
	}
	if err := checkBlocks(cfg.Dir); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	o := tsdb.DefaultOptions()
	o.NoLockfile = true
	// A hub is also for a board: the defaults are for millions of series.
	o.WALSegmentSize = 16 << 20
	o.WALCompression = compression.Snappy
	o.StripeSize = 1 << 10
	o.HeadChunksWriteBufferSize = 64 << 10
	o.EnableExemplarStorage, o.MaxExemplars = true, 10_000
	// Remote write 2.0 takes type and help of a metric from the write-ahead log.
	o.EnableMetadataWALRecords = true
	if cfg.Receive {
		o.OutOfOrderTimeWindow = receiveLate.Milliseconds()
	}
	o.RetentionDuration, o.MaxBytes = cfg.Retention.Milliseconds(), cfg.RetentionSize
	// As Prometheus has it: a block goes as a whole, so it spans no more than a tenth of what is kept.
	o.MaxBlockDuration = (31 * 24 * time.Hour).Milliseconds()
	if o.RetentionDuration > 0 {
		o.MaxBlockDuration = min(o.MaxBlockDuration, o.RetentionDuration/10)
	}
	o.MaxBlockDuration = max(o.MaxBlockDuration, o.MinBlockDuration)
	if s.DB, err = tsdb.Open(cfg.Dir, slog.New(quiet{cfg.Logger.Handler()}), reg, o, s.was); err != nil {
		err = fmt.Errorf("open storage %s: %w; make room, or move what is broken away to go on without it", cfg.Dir, err)
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

// checkBlocks finds blocks that the database would pass over in silence. One that is not complete yet has another name.
func checkBlocks(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		file := filepath.Join(dir, e.Name(), "meta.json")
		text, err := os.ReadFile(file)
		if err == nil {
			if err = json.Unmarshal(text, new(tsdb.BlockMeta)); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
			}
		}
		if err != nil {
			return fmt.Errorf("broken block: %w; move %s away to go on without it", err, filepath.Dir(file))
		}
	}
	return nil
}

func (s *store) lockFile() string { return filepath.Join(s.dir, "lock") }

// unlock removes the lock's file while it is held: afterwards it could be another's.
func (s *store) unlock() error { return errors.Join(os.Remove(s.lockFile()), s.lock.Release()) }

// close is as often as one likes.
func (s *store) close() error {
	s.once.Do(func() {
		if err := s.Close(); err != nil {
			s.closed = fmt.Errorf("close storage %s: %w", s.dir, err)
		}
		s.closed = errors.Join(s.closed, s.unlock())
	})
	return s.closed
}

// AppenderV2 implements storage.AppendableV2 for the scraper.
func (s *store) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &appender{s.DB.AppenderV2(ctx), s}
}

// appender tells its store how writing went.
type appender struct {
	storage.AppenderV2

	store *store
}

// AppendExemplars implements storage.ExemplarAppenderV2, which receiving needs.
func (a *appender) AppendExemplars(ref storage.SeriesRef, ls labels.Labels, all []exemplar.Exemplar) (storage.SeriesRef, error) {
	to, ok := a.AppenderV2.(storage.ExemplarAppenderV2)
	if !ok {
		return 0, fmt.Errorf("%T takes no exemplars", a.AppenderV2)
	}
	return to.AppendExemplars(ref, ls, all)
}

func (a *appender) Commit() error {
	err := a.AppenderV2.Commit()
	a.store.wrote(err)
	return err
}

// wrote takes note of an error of writing.
func (s *store) wrote(err error) {
	if err == nil {
		return
	}
	select {
	case s.failed <- err:
	default:
	}
}

// watch returns the first error of writing, or nil when ctx ends. One is fatal: the write-ahead log has half a record then, and
// when it is read again all that follows is thrown away, be there room again or not. Opening it anew cuts the half record off.
func (s *store) watch(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return fmt.Errorf("storage %s cannot be written: %w; make room and start the hub again, nothing stored before is lost", s.dir, err)
	case <-ctx.Done():
		return nil
	}
}

// Stats implements v1.TSDBAdminStats.
func (s *store) Stats(label string, limit int) (*tsdb.Stats, error) {
	return s.Head().Stats(label, limit), nil
}

// WALReplayStatus implements v1.TSDBAdminStats.
func (s *store) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return s.was.Head.WALReplayStatus.GetWALReplayStatus(), nil
}

// BlockMetas implements v1.TSDBAdminStats.
func (s *store) BlockMetas() ([]tsdb.BlockMeta, error) { return s.DB.BlockMetas(), nil }

// quiet passes warnings and worse: the database tells at length how it starts.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}
func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(name string) slog.Handler   { return quiet{q.Handler.WithGroup(name)} }
