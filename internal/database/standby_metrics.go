package database

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

var outcomeNames = [outcomes]string{answeredByStandby: "standby", primaryBehind: "primary_behind", primaryFailed: "primary_failed", primaryBusy: "primary_busy", primaryEmpty: "primary_empty"}

// ObserveStandby measures a service's reads on its standby. There are none without one.
func ObserveStandby(meter metric.Meter, service string, standby *Standby) error {
	if standby == nil {
		return nil
	}
	reads, err1 := meter.Int64ObservableCounter("gatehouse.database.standby.reads",
		metric.WithUnit("{read}"), metric.WithDescription("Reads that a standby may answer, by what answered them."))
	distance, err2 := meter.Int64ObservableGauge("gatehouse.database.standby.distance",
		metric.WithUnit("By"), metric.WithDescription("How far the replay of the standby was behind the position of the last read."))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measure the standby of %s: %w", service, err)
	}
	of := attribute.String("service", service)
	labels := metric.WithAttributeSet(attribute.NewSet(of))
	var by [outcomes]metric.MeasurementOption
	for i, name := range outcomeNames {
		by[i] = metric.WithAttributeSet(attribute.NewSet(of, attribute.String("answered_by", name)))
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for i := range standby.reads {
			o.ObserveInt64(reads, standby.reads[i].Load(), by[i])
		}
		o.ObserveInt64(distance, standby.distance.Load(), labels)
		return nil
	}, reads, distance)
	if err != nil {
		return fmt.Errorf("measure the standby of %s: %w", service, err)
	}
	return nil
}
