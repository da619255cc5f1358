/* Counts the places of instrumented code (gcc -fsanitize-coverage=trace-pc) that were reached. The fuzzer keeps an
   input that makes the count grow. The library is preloaded, so that the extensions find the function. */

#include <stdint.h>

static unsigned char reached[1 << 20];
uint64_t fuzz_reached_count;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    unsigned char *one = &reached[(place ^ (place >> 20)) & (sizeof reached - 1)];
    if (!*one) {
        *one = 1;
        fuzz_reached_count++;
    }
}
