package upstream

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Drift returns the differences between the pinned descriptors of an upstream and those
// that it serves, as far as published methods are concerned: each a sentence. Other
// methods that it has gained are listed last, with "new: ".
func (u *Upstream) Drift(served []byte) ([]string, error) {
	set, err := parseSet(served)
	if err != nil {
		return nil, err
	}
	now, err := link(ownFiles(set))
	if err != nil {
		return nil, err
	}
	var drift []string
	for _, method := range u.Methods {
		name := method.Descriptor.FullName()
		found, err := now.FindDescriptorByName(name)
		if err != nil {
			drift = append(drift, fmt.Sprintf("%s is published, and the upstream no longer has it", name))
			continue
		}
		served, ok := found.(protoreflect.MethodDescriptor)
		if !ok || specOf(served).StreamType != method.Spec.StreamType {
			drift = append(drift, fmt.Sprintf("%s streams otherwise than its pinned descriptor says", name))
			continue
		}
		seen := map[protoreflect.FullName]bool{}
		drift = append(drift, changed(method.Descriptor.Input(), served.Input(), seen)...)
		drift = append(drift, changed(method.Descriptor.Output(), served.Output(), seen)...)
		options, _ := served.Options().(*descriptorpb.MethodOptions)
		pinned, _ := method.Descriptor.Options().(*descriptorpb.MethodOptions)
		if said := policyOf(options); said != nil && !proto.Equal(said, policyOf(pinned)) {
			drift = append(drift, fmt.Sprintf("%s has another policy than the pinned one, which counts", name))
		}
	}
	return append(dedupe(drift), u.gained(set)...), nil
}

// gained returns the methods that are served and not pinned.
func (u *Upstream) gained(set *descriptorpb.FileDescriptorSet) []string {
	known := map[string]bool{}
	for _, m := range u.Methods {
		known[m.Spec.Procedure] = true
	}
	for _, procedure := range u.Unpublished {
		known[procedure] = true
	}
	var gained []string
	for _, file := range ownFiles(set) {
		for _, service := range file.GetService() {
			name := protoreflect.FullName(strings.Trim(file.GetPackage()+"."+service.GetName(), "."))
			for _, method := range service.GetMethod() {
				if procedure := procedureOf(name, protoreflect.Name(method.GetName())); !known[procedure] && !isReflection(name) {
					gained = append(gained, "new: "+procedure+" is not pinned, so nobody can call it")
				}
			}
		}
	}
	slices.Sort(gained)
	return gained
}

// changed compares two forms of a message by their fields.
func changed(pinned, served protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) []string {
	if seen[pinned.FullName()] {
		return nil
	}
	seen[pinned.FullName()] = true
	if pinned.FullName() != served.FullName() {
		return []string{fmt.Sprintf("%s is now %s", pinned.FullName(), served.FullName())}
	}
	var drift []string
	for i := range pinned.Fields().Len() {
		was := pinned.Fields().Get(i)
		is := served.Fields().ByNumber(was.Number())
		switch {
		case is == nil:
			drift = append(drift, fmt.Sprintf("%s is gone", was.FullName()))
		case is.Kind() != was.Kind() || is.Cardinality() != was.Cardinality():
			drift = append(drift, fmt.Sprintf("%s is now of the type %s %s, and was %s %s", was.FullName(), is.Cardinality(), is.Kind(), was.Cardinality(), was.Kind()))
		case is.Name() != was.Name():
			drift = append(drift, fmt.Sprintf("%s is now called %s", was.FullName(), is.Name()))
		case was.Message() != nil && is.Message() != nil:
			drift = append(drift, changed(was.Message(), is.Message(), seen)...)
		}
	}
	for i := range served.Fields().Len() {
		if is := served.Fields().Get(i); pinned.Fields().ByNumber(is.Number()) == nil {
			drift = append(drift, fmt.Sprintf("%s is not pinned, so JSON callers do not get it", is.FullName()))
		}
	}
	return drift
}

func dedupe(texts []string) []string {
	slices.Sort(texts)
	return slices.Compact(texts)
}
