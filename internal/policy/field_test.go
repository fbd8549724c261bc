package policy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	authv1 "gatehouse/gen/auth/v1"
	bffv1 "gatehouse/gen/bff/v1"
	policyv1 "gatehouse/gen/policy/v1"
	_ "gatehouse/gen/users/v1"
	"gatehouse/internal/policy"
	"gatehouse/internal/rpctest"
)

// newDynamic makes a request of a method.
func newDynamic(t testing.TB, method protoreflect.MethodDescriptor, json string) proto.Message {
	t.Helper()
	message := dynamicpb.NewMessage(method.Input())
	if err := protojson.Unmarshal([]byte(json), message); err != nil {
		t.Fatal(err)
	}
	return message
}

func TestTextsAreNormalized(t *testing.T) {
	t.Parallel()
	nfc, nfkc := policyv1.UnicodeForm_UNICODE_FORM_NFC, policyv1.UnicodeForm_UNICODE_FORM_NFKC
	yes := new(true)
	for _, test := range []struct {
		how        *policyv1.Normalize
		from, want string
	}{
		{&policyv1.Normalize{Trim: yes}, " \t\u00a0Ada  Byron\u2003\n", "Ada  Byron"},
		{&policyv1.Normalize{Trim: yes}, " ", ""},
		{&policyv1.Normalize{CollapseSpaces: yes}, "  Ada \u00a0\t Byron ", " Ada Byron "},
		{&policyv1.Normalize{CollapseSpaces: yes, Trim: yes}, "  Ada \u00a0\t Byron ", "Ada Byron"},
		{&policyv1.Normalize{LowerCase: yes}, "ÅDA", "åda"},
		{&policyv1.Normalize{LowerCase: yes, Form: &nfc}, "A\u030a", "\u00e5"},
		{&policyv1.Normalize{Form: &nfc}, "A\u030a", "\u00c5"},
		{&policyv1.Normalize{Form: &nfc}, "\uff21\ufb01", "\uff21\ufb01"},
		{&policyv1.Normalize{Form: &nfkc}, "\uff21\ufb01", "Afi"},
		{&policyv1.Normalize{Form: &nfkc, Trim: yes, CollapseSpaces: yes}, "\u3000a\u2003\u2003b\u00a0", "a b"},
		{&policyv1.Normalize{Email: yes}, " Ada@EXAMPLE.com ", "Ada@example.com"},
		{&policyv1.Normalize{Email: yes}, "Jose\u0301@Example.COM", "Jos\u00e9@example.com"},
		{&policyv1.Normalize{Email: yes}, "ada@Bücher.example", "ada@xn--bcher-kva.example"},
		{&policyv1.Normalize{Email: yes}, "ada@bu\u0308cher.example", "ada@xn--bcher-kva.example"},
		{&policyv1.Normalize{Email: yes}, "ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"},
		{&policyv1.Normalize{Email: yes}, "ada@ＥＸＡＭＰＬＥ.com", "ada@example.com"},
		{&policyv1.Normalize{Email: yes}, `"a@b"@Example.com`, `"a@b"@example.com`},
		{&policyv1.Normalize{Email: yes}, "Ada", "Ada"},
		{&policyv1.Normalize{Email: yes}, "Ada@", "Ada@"},
		{&policyv1.Normalize{Email: yes}, "ada@" + strings.Repeat("界.", 300) + "example", "ada@" + strings.Repeat("界.", 300) + "example"}, // no domain is so long
		{&policyv1.Normalize{Email: yes}, "ada@\u200b.\u0301", "ada@\u200b.\u0301"},                                                       // for the validator to refuse
	} {
		form := policy.TextNormalizer(test.how)
		if got := form(test.from); got != test.want {
			t.Errorf("%v of %.100q: got %.100q, want %.100q", test.how, test.from, got, test.want)
		}
	}
}

// What is in its form stays as it is: else a record that is read and written
// again would change, and a tag would not meet its purge.
func FuzzNormalizingTwiceIsNormalizingOnce(f *testing.F) {
	for _, text := range []string{" Ada@EXAMPLE.com ", "A\u030a \u0301", "\ufdfa\u00a0\u3000", "İstanbul@İ.example", "a@b@C", "\u1e9e\u0345", "x@\u0130.\u200d"} {
		f.Add(text)
	}
	nfc, nfkc := policyv1.UnicodeForm_UNICODE_FORM_NFC, policyv1.UnicodeForm_UNICODE_FORM_NFKC
	yes := new(true)
	hows := []*policyv1.Normalize{
		{Trim: yes}, {CollapseSpaces: yes}, {LowerCase: yes}, {Form: &nfc}, {Form: &nfkc}, {Email: yes},
		{Trim: yes, Form: &nfc}, {Trim: yes, CollapseSpaces: yes, LowerCase: yes, Form: &nfkc}, {LowerCase: yes, Form: &nfc},
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "?")
		for _, how := range hows {
			form := policy.TextNormalizer(how)
			once := form(text)
			if twice := form(once); twice != once {
				t.Errorf("%v of %q: got %q once and %q twice", how, text, once, twice)
			}
		}
	})
}

func TestEveryTextOfAMessageIsNormalized(t *testing.T) {
	t.Parallel()
	s := rpctest.NewSchema()
	s.Normalize(1, &policyv1.Normalize{Trim: new(true)})
	s.Normalize(5, &policyv1.Normalize{Trim: new(true)})
	rpctest.SetField(s.Inner.Field[0], &policyv1.Field{Normalize: &policyv1.Normalize{Trim: new(true)}})
	method := planOf(t, s).Descriptor
	request := newDynamic(t, method, `{"id":" a ","password":" b ","names":[" c "," d "],"inner":{"id":" e ","token":" f ","next":{"id":" g "}},"inners":[{"id":" h "}],"by_name":{" i ":{"id":" j "}}}`)
	policy.NormalizeMessage(request)
	want := newDynamic(t, method, `{"id":"a","password":" b ","names":["c","d"],"inner":{"id":"e","token":" f ","next":{"id":"g"}},"inners":[{"id":"h"}],"by_name":{" i ":{"id":"j"}}}`)
	if !proto.Equal(request, want) {
		t.Errorf("got %v, want %v", request, want)
	}
	empty := newDynamic(t, method, `{}`)
	policy.NormalizeMessage(empty)
	if proto.Size(empty) != 0 {
		t.Errorf("an empty request: got %v, want nothing made of nothing", empty)
	}
}

func TestRedactedFieldsAreRemoved(t *testing.T) {
	t.Parallel()
	request := newDynamic(t, planOf(t, rpctest.NewSchema()).Descriptor, `{"id":"a","password":"s3cret","inner":{"id":"b","token":"s3cret","next":{"token":"s3cret"}},"inners":[{"token":"s3cret","id":"c"}],"by_name":{"d":{"token":"s3cret"}}}`)
	request.ProtoReflect().SetUnknown([]byte("\xfa\x06\x06s3cret"))
	request.ProtoReflect().Mutable(request.ProtoReflect().Descriptor().Fields().ByName("inner")).Message().SetUnknown([]byte("\xfa\x06\x06s3cret"))
	before, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	written, err := proto.Marshal(policy.Redact(request))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(written), "s3cret") {
		t.Errorf("got %q, want no secret in it", written)
	}
	for _, kept := range []string{"a", "b", "c", "d"} {
		if !strings.Contains(string(written), kept) {
			t.Errorf("got %q, want %q kept", written, kept)
		}
	}
	if after, _ := (proto.MarshalOptions{Deterministic: true}).Marshal(request); string(after) != string(before) {
		t.Errorf("the message itself has changed: got %q, want %q", after, before)
	}
	login := policy.Redact(&bffv1.LoginResponse{Result: &bffv1.LoginResponse_SignedIn{SignedIn: &bffv1.SignedIn{Tokens: &bffv1.Tokens{AccessToken: "s3cret", RefreshToken: "s3cret", TokenType: "Bearer"}, DeviceToken: "s3cret"}}})
	if text := fmt.Sprint(login); strings.Contains(text, "s3cret") || !strings.Contains(text, "Bearer") {
		t.Errorf("Login's answer: got %s, want it without its secrets", text)
	}
	if got := policy.Redact((*authv1.Tokens)(nil)); got != nil {
		t.Errorf("no message: got %v, want none", got)
	}
}

// secretive is what a secret is named like.
var secretive = regexp.MustCompile(`password|passphrase|token|secret|credential|private|key|code|otp|challenge`)

// A field that is named like a secret must declare whether it is one.
func TestEveryFieldNamedLikeASecretDeclaresRedaction(t *testing.T) {
	t.Parallel()
	// Told apart once, by name: a secret that is said to be none shows here.
	open := map[protoreflect.Name]bool{"page_token": true, "next_page_token": true, "token_type": true, "public_key": true, "public_keys": true, "credential_id": true, "key_id": true}
	// A code of Connect, unlike that of an authenticator app.
	openFields := map[protoreflect.FullName]bool{"bff.v1.PartError.code": true, "bff.v1.Trace.code": true, "bff.v1.TraceStep.code": true}
	seen := 0
	var look func(protoreflect.MessageDescriptors)
	look = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			look(messages.Get(i).Messages())
			fields := messages.Get(i).Fields()
			for j := range fields.Len() {
				field := fields.Get(j)
				holdsText := field.Kind() == protoreflect.StringKind || field.Kind() == protoreflect.BytesKind
				if !holdsText || field.Name() == "passkey_id" || !secretive.MatchString(string(field.Name())) {
					continue
				}
				seen++
				policy, _ := proto.GetExtension(field.Options(), policyv1.E_Field).(*policyv1.Field)
				if policy == nil || policy.Redact == nil {
					t.Errorf("%s is named like a secret: add (policy.v1.field).redact, true or false", field.FullName())
				} else if isOpen := open[field.Name()] || openFields[field.FullName()]; policy.GetRedact() == isOpen {
					t.Errorf("%s: it says redact = %v, want %v", field.FullName(), policy.GetRedact(), !isOpen)
				}
			}
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		switch file.Package() {
		case "auth.v1", "bff.v1", "users.v1":
			look(file.Messages())
		}
		return true
	})
	if seen < 50 {
		t.Errorf("saw %d fields that are named like secrets, want the 50 and more that there are", seen)
	}
}
