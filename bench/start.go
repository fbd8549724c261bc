package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// measureStarts times up from its start to its banner: on an empty data folder, and
// repeatedly on the data of the first run. After an idle time, it reads the memory of
// the first and of the last run.
func (r *results) measureStarts(ctx context.Context, o options, dir string) error {
	data := filepath.Join(dir, "up")
	for i := 0; i <= o.starts; i++ {
		if i > 1 && time.Now().After(o.until.Add(-o.idle)) {
			i = o.starts // whose memory is read
		}
		times, memory := &r.laterStart, (*memory)(nil)
		switch i {
		case 0:
			times, memory = &r.firstStart, &r.firstIdle
		case o.starts:
			memory = &r.laterIdle
		}
		if err := measureStart(ctx, o, dir, data, times, memory); err != nil {
			return err
		}
	}
	// A first start is slow to repeat: three show how much it varies.
	for i := range 2 {
		if err := measureStart(ctx, o, dir, fmt.Sprintf("%s%d", data, i), &r.firstStart, nil); err != nil {
			return err
		}
	}
	return nil
}

// measureStart adds the time of a start, and reads the memory into "into" unless it is nil.
func measureStart(ctx context.Context, o options, dir, data string, times *[]float64, into *memory) error {
	p, took, err := startUp(ctx, o.binary, filepath.Join(dir, "up.log"), data)
	if err != nil {
		return err
	}
	defer p.stop()
	*times = append(*times, milliseconds(took))
	if into == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(o.idle):
	}
	*into, err = memoryOf(p.pid())
	return err
}

const bannerLine = "Gatehouse is ready."

// startUp runs up, and returns after its banner with the time that it took.
func startUp(ctx context.Context, binary, logPath, data string) (*process, time.Duration, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, 0, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer reader.Close()
	begin := time.Now()
	p, err := start(ctx, binary, []string{"up"}, []string{"GATEHOUSE_DATA_DIR=" + data, "GATEHOUSE_LISTEN=" + address}, writer, logPath)
	_ = writer.Close()
	if err != nil {
		return nil, 0, err
	}
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		if strings.Contains(lines.Text(), bannerLine) {
			return p, time.Since(begin), nil
		}
	}
	p.stop()
	return nil, 0, errors.New("up ended without its banner: " + p.logTail())
}
