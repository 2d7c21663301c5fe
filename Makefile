# Tools are pinned and fetched by the go command when they are first used.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME ?= 60s

SEEDS ?= 1000

.PHONY: run test race lint bench fuzz simulate cover vuln

## run: the example application, with a WorkOS of its own
run:
	go run ./example

## test: what the README says
test:
	go test ./...

## race: the same, watched by the race detector
race:
	go test -race -timeout=15m ./...

## lint: formatting, vet and staticcheck
lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on the files above"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

## bench: a request signed in, expired and anonymous, beside one RSA verification
bench:
	go test -run='^$$' -bench=. -benchmem .

## fuzz: every fuzz target for FUZZTIME
fuzz:
	@for target in $$(go test -list='^Fuzz' . | grep '^Fuzz'); do \
		echo "$$target"; go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) . || exit 1; \
	done

## simulate: SEEDS simulated months, to see whether anybody is signed out
simulate:
	go test -run='^TestSimulatedMonth$$' -seeds=$(SEEDS) -timeout=0 -v .

## cover: statement coverage of the package, by function
cover:
	go test -coverprofile=coverage.out -coverpkg=. ./...
	go tool cover -func=coverage.out

## vuln: known vulnerabilities; asks an online database, so CI leaves it out
vuln:
	go run $(GOVULNCHECK) ./...
