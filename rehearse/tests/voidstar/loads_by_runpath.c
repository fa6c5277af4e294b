/* Finds a library in its own RUNPATH, which dlopen(3) uses for the program that calls it. */
#include <dlfcn.h>
#include <stdio.h>

int main(void) {
    void *library = dlopen("libplugin.so", RTLD_NOW);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    return library == NULL;
}
