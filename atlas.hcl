# For the Atlas CLI: `atlas schema apply --env local` makes the same tables as
# `gatehouse schema apply`. Roles and grants are made by the latter alone, so
# run it afterwards. Other schemas of the database are left as they are.
# Written by make gen.
#
#   DATABASE_URL   postgres://user:password@host:5432/database
#   ATLAS_DEV_URL  an empty database, used as a scratch pad and left empty,
#                  or docker://postgres/17/dev
env "local" {
  src     = ["file://schema.sql"]
  url     = getenv("DATABASE_URL")
  dev     = getenv("ATLAS_DEV_URL")
  schemas = ["auth", "users"]
  # The closed months of the audit log: docs/explanation/audit-log.md.
  exclude = ["auth.audit_events_*"]
}
