# Development tasks; the commands are in .ci/run.

_default:
    @just --list

# Install the package and its development tools into the current environment
install:
    .ci/run install

# Check style, formatting and types
lint:
    .ci/run lint

# Build the documentation into build/docs, with warnings as errors
docs:
    .ci/run docs

# Run all tests
test:
    .ci/run test

# Run the tests that take less than a few seconds each
quick:
    .ci/run quick

# Run everything that CI runs, in a fresh environment
ci:
    .ci/run
