package app

import (
	"fmt"
	"strings"
)

const atlasHCL = `# For the Atlas CLI: ` + "`atlas schema apply --env local`" + ` makes the same tables as
# ` + "`gatehouse schema apply`" + `. Roles and grants are made by the latter alone, so
# run it afterwards. Other schemas of the database are left as they are.
# Written by make gen.
#
#   DATABASE_URL   postgres://user:password@host:5432/database
#   ATLAS_DEV_URL  an empty database, used as a scratch pad and left empty,
#                  or docker://postgres/17/dev
env "local" {
  src     = [%s]
  url     = getenv("DATABASE_URL")
  dev     = getenv("ATLAS_DEV_URL")
  schemas = [%s]
  # The closed months of the audit log: docs/explanation/audit-log.md.
  exclude = ["auth.audit_events_*"]
}
`

// AtlasHCL returns the text of atlas.hcl, which names the schemas of all services and
// the files that declare them.
func AtlasHCL() string {
	files := []string{`"file://schema.sql"`}
	var names []string
	for _, service := range Services() {
		if service.HasTables() {
			names = append(names, fmt.Sprintf("%q", service.Name))
		}
		if service.Schema != "" {
			files = append(files, fmt.Sprintf("%q", "file://"+service.Name+"/schema.sql"))
		}
	}
	return fmt.Sprintf(atlasHCL, strings.Join(files, ", "), strings.Join(names, ", "))
}
