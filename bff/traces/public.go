package traces

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	bffv1 "gatehouse/gen/bff/v1"
	"gatehouse/internal/calltrace"
)

// public converts a recorded call to that of the public API.
func public(call *calltrace.Trace) *bffv1.Trace {
	converted := &bffv1.Trace{
		Method: strings.TrimPrefix(call.Procedure, "/"), RequestId: call.RequestID, StartTime: timestamppb.New(call.Begun),
		Duration: durationpb.New(call.Call.Took), Code: codeOf(call.Call), Reason: call.Call.Reason, Cache: call.Call.Cache,
		Steps: make([]*bffv1.TraceStep, len(call.Steps)),
	}
	for i, step := range call.Steps {
		converted.Steps[i] = &bffv1.TraceStep{
			Kind: bffv1.TraceStepKind(step.Kind), Name: strings.TrimPrefix(step.Name, "/"), Parent: int32(step.Parent + 1),
			Offset: durationpb.New(step.Start), Duration: durationpb.New(step.Took),
			Code: codeOf(step), Reason: step.Reason, Cache: step.Cache,
		}
	}
	return converted
}

// codeOf returns the Connect code of a step, as logs have it; empty if it had not ended.
func codeOf(step calltrace.Step) string {
	switch {
	case step.Open:
		return ""
	case step.Failed:
		return step.Code.String()
	}
	return "ok"
}
