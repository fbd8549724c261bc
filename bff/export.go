package bff

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	servicev1 "gatehouse/gen/service/v1"
	"gatehouse/internal/compose"
)

// exportFromServices fetches what the application's own services store about a person.
// Each is a required part: an export that lacks one would look complete. Call what it
// returns once the composition has all parts; it is nil where no service stores any.
func exportFromServices(c *compose.Composition, exporters map[string]servicev1.PersonServiceClient, account string) func() *structpb.Struct {
	parts := map[string]func() *servicev1.ExportPersonResponse{}
	for name, client := range exporters {
		part := compose.Required(c, name, readLimit, func(ctx context.Context) (*servicev1.ExportPersonResponse, error) {
			return client.ExportPerson(ctx, &servicev1.ExportPersonRequest{AccountId: account})
		})
		parts[name] = part.Value
	}
	return func() *structpb.Struct {
		if len(parts) == 0 {
			return nil
		}
		export := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for name, value := range parts {
			data := value().GetData()
			if data == nil {
				data = &structpb.Struct{}
			}
			export.Fields[name] = structpb.NewStructValue(data)
		}
		return export
	}
}
