# One image for every role: docker run gatehouse auth, users, bff, schema apply…
FROM --platform=$BUILDPLATFORM golang:1.26.9 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
# The build context lacks git, so pass the commit and its time:
# docker build --build-arg COMMIT=$(git rev-parse HEAD) --build-arg COMMIT_TIME=$(git show -s --format=%cI)
ARG COMMIT=unknown
ARG COMMIT_TIME=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X gatehouse/app.commit=$COMMIT -X gatehouse/app.commitTime=$COMMIT_TIME" -o /gatehouse .

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /gatehouse /gatehouse
ENTRYPOINT ["/gatehouse"]
