// Loaded before the C library: counts allocations by who makes them. The meter's "ready" line divides before from after; threads are all but the
// first. What was counted is written to stderr at the end.
#define _GNU_SOURCE
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

static uintptr_t begin = UINTPTR_MAX, end;
static atomic_bool ready;
static atomic_uint ours_before, ours_after, threads, libraries_after;

static int first_object(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    (void)context;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD) {
            uintptr_t at = info->dlpi_addr + p->p_vaddr;
            begin = at < begin ? at : begin;
            end = at + p->p_memsz > end ? at + p->p_memsz : end;
        }
    }
    return 1; // The program itself comes first.
}

__attribute__((constructor)) static void find_program(void) {
    dl_iterate_phdr(first_object, NULL);
}

static void count(const void *caller) {
    bool ours = (uintptr_t)caller >= begin && (uintptr_t)caller < end;
    if (syscall(SYS_gettid) != getpid()) {
        threads++;
    }
    if (ours) {
        (*(ready ? &ours_after : &ours_before))++;
    } else if (ready) {
        libraries_after++;
    }
}

void *malloc(size_t n) {
    count(__builtin_return_address(0));
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    count(__builtin_return_address(0));
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    count(__builtin_return_address(0));
    return __libc_realloc(p, n);
}

void *memalign(size_t alignment, size_t n) {
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, n);
}

void *aligned_alloc(size_t alignment, size_t n) {
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n) {
    count(__builtin_return_address(0));
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : 12;
}

ssize_t write(int fd, const void *p, size_t n) {
    if (fd == STDOUT_FILENO && n > 6 && memcmp(p, "ready ", 6) == 0) {
        ready = true;
    }
    return syscall(SYS_write, fd, p, n);
}

__attribute__((destructor)) static void tell(void) {
    char line[160];
    int n = snprintf(line, sizeof line, "allocations ours_before=%u ours_after=%u threads=%u libraries_after=%u\n", ours_before, ours_after, threads,
                     libraries_after);
    write(STDERR_FILENO, line, (size_t)n);
}
