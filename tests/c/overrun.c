/* Broken on purpose: lets the library write beyond a buffer of the caller's. The memory checkers
 * that watch the other programs must see this. */
#include "check.h"

int main(int argc, char **argv) {
    jep_composer *composer = open_composer(begin(argc, argv), NULL);
    char *small = malloc(4);
    CHECK(small != NULL);
    jep_dir(composer, small, PATH_MAX);
    free(small);
    jep_free(composer);
    return 0;
}
