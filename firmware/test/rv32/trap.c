// What the processor does when it cannot go on: say where, and end the run, instead of starting over for ever.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define READ(name, value) __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, " name "\n.option pop" : "=r"(value))

void trap_report(void);

void trap_report(void) {
    uintptr_t cause, where, what;
    READ("mcause", cause);
    READ("mepc", where);
    READ("mtval", what);
    // 3: undefined behaviour (ebreak); 2: bad instruction; 5 and 7: load and store where there is no memory.
    printf("trap: cause %lu at %#lx, value %#lx\n", (unsigned long)cause, (unsigned long)where, (unsigned long)what);
    _Exit(99);
}

// Whatever the stack pointer was, it may be what is wrong.
__attribute__((naked, aligned(4))) static void trap(void) {
    __asm__ volatile("la sp, __stack\nj trap_report");
}

__attribute__((constructor)) static void install(void) {
    __asm__ volatile(".option push\n.option arch, +zicsr\ncsrw mtvec, %0\n.option pop" : : "r"(trap));
}
