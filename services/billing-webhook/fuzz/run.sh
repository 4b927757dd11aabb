#!/usr/bin/env bash
# Fuzzes each target for FUZZ_SECONDS; FUZZ_TARGETS names some of them. `make fuzz` has installed
# cargo-fuzz in .tools/. Everything it writes is below target/fuzz; a corpus there grows from run to
# run. Ends with 1 when a target crashed.
set -euo pipefail
cd "$(dirname "$0")/../../.."

seconds=${FUZZ_SECONDS:-60}
here=services/billing-webhook/fuzz
fixtures=services/billing-webhook/tests/fixtures
out=$PWD/target/fuzz
read -r -a targets <<<"${FUZZ_TARGETS:-$(cd $here/fuzz_targets && echo *.rs | sed 's/\.rs//g')}"

# No toolchain is fetched for this.
export RUSTUP_AUTO_INSTALL=0
if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    echo "############################################################################"
    echo "# NOT FUZZED: cargo-fuzz needs a nightly Rust, and rustup knows none here. #"
    echo "# Only seeds, fixtures and regressions are run, and neighbours of theirs.  #"
    echo "############################################################################"
    exec cargo test -p billing-webhook --test it --locked fuzzed::
fi

# What is fuzzed is what ships: without cfg(fuzzing), which switches some crates' checks off.
PATH=$PWD/.tools/fuzz/bin:$PATH cargo +nightly fuzz build --fuzz-dir $here --target-dir "$out" \
    --no-cfg-fuzzing

# The words of the fixtures: without them a fuzzer seldom guesses the name of a field.
mkdir -p "$out/artifacts" "$out/logs"
grep -ohE '"[A-Za-z0-9_.:/-]{2,40}"' -r --include='*.json' $fixtures | sort -u >"$out/words.dict"

seed() { # TARGET: fills its corpus; tests/it/fuzzed.rs has the same folders
    local corpus=$out/corpus/$1 from=("$here/seeds/$1" "$here/regressions/$1")
    case $1 in
    stripe_payload) from+=("$fixtures"/{stripe,more,stripe_intents}) ;;
    gocardless_payload) from+=("$fixtures"/{gocardless,gocardless_more}) ;;
    standard_payload) from+=("$fixtures/standard") ;;
    esac
    mkdir -p "$corpus"
    for folder in "${from[@]}"; do
        if [[ -d $folder ]]; then
            find "$folder" -type f -exec cp -t "$corpus" {} +
        fi
    done
}

fuzz() { # TARGET: one run, its summary in the log; fails on a crash
    # A body has at most 1 MiB, which no header may approach. Ten seconds for one input is a find.
    local longest=1048576
    [[ $1 == *_signature ]] && longest=65536
    ASAN_OPTIONS=detect_odr_violation=0 \
        "$out/x86_64-unknown-linux-gnu/release/$1" "$out/corpus/$1" \
        -dict="$out/words.dict" -max_len=$longest -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$out/artifacts/$1-" \
        >"$out/logs/$1.log" 2>&1
}

summary() { # TARGET SECONDS CRASHES
    local log=$out/logs/$1.log cover
    cover=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1) || cover='cov: 0 ft: 0'
    printf '%-21s %10s executions in %s s, %s, crashes: %s\n' "$1" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$2" "$cover" "$3"
}

crashed=()
lines=()
for target in "${targets[@]}"; do
    seed "$target"
    echo "$target: fuzzing for $seconds s"
    began=$SECONDS
    crashes=0
    if ! fuzz "$target"; then
        crashes=1
        crashed+=("$target")
        tail -n 40 "$out/logs/$target.log"
    fi
    lines+=("$(summary "$target" $((SECONDS - began)) $crashes)")
done
printf '%s\n' "${lines[@]}"
if ((${#crashed[@]})); then
    echo "Crashed: ${crashed[*]}. The inputs are in $out/artifacts; keep them in $here/regressions/TARGET/."
    exit 1
fi
