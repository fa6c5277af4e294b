/* Text goes into the caller's buffer cut to fit, with a NUL, and never a byte beyond. */
#include "check.h"

#define ROOM 1024
#define FILLER '#'

/* Checks one call's text in every buffer size: `whole` up to its end, or what fits of it. */
static void check_cut(const char *got, uint64_t cap, const char *whole) {
    size_t length = strlen(whole), fits = length < cap ? length : (size_t)cap - 1;
    if (cap == 0) {
        CHECK(got[0] == FILLER);
    } else {
        CHECK(memcmp(got, whole, fits) == 0);
        CHECK(got[fits] == 0);
        for (size_t i = fits + 1; i < ROOM; i++) CHECK(got[i] == FILLER);
    }
}

static void check_text(jep_composer *composer,
                       int64_t (*text)(jep_composer *, char *, uint64_t)) {
    char whole[ROOM], got[ROOM];
    int64_t length = text(composer, whole, sizeof whole);
    CHECK_CODE(length, text(composer, NULL, 0));
    CHECK_CODE(length, text(composer, NULL, sizeof whole));
    CHECK(length > 0 && length == (int64_t)strlen(whole));
    for (uint64_t cap = 0; cap <= (uint64_t)length + 2; cap++) {
        memset(got, FILLER, sizeof got);
        CHECK_CODE(length, text(composer, got, cap));
        check_cut(got, cap, whole);
    }
    /* A caller may say that a buffer is larger than memory. */
    memset(got, FILLER, sizeof got);
    CHECK_CODE(length, text(composer, got, UINT64_MAX));
    check_cut(got, ROOM, whole);
}

static void check_error(const char *dir) {
    char whole[ROOM], got[ROOM];
    jep_composer *composer = NULL;
    CHECK_CODE(JEP_ERR_BUSY, jep_open(dir, NULL, &composer, whole, sizeof whole));
    CHECK(strlen(whole) > strlen(dir));
    for (uint64_t cap = 0; cap <= strlen(whole) + 2; cap++) {
        memset(got, FILLER, sizeof got);
        CHECK_CODE(JEP_ERR_BUSY, jep_open(dir, NULL, &composer, got, cap));
        check_cut(got, cap, whole);
    }
    CHECK(composer == NULL);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    char error[ROOM], path[PATH_MAX];
    jep_composer *composer = NULL;
    memset(error, FILLER, sizeof error);
    CHECK_CODE(JEP_OK, jep_open(dir, NULL, &composer, error, sizeof error));
    for (size_t i = 0; i < sizeof error; i++) CHECK(error[i] == FILLER);
    check_text(composer, jep_dir);
    check_text(composer, jep_stats);
    check_error(dir);
    char json[ROOM];
    int64_t length = jep_stats(composer, json, sizeof json);
    CHECK(json[0] == '{' && json[length - 1] == '}');
    CHECK_CODE((int64_t)strlen(dir), jep_dir(composer, path, sizeof path));
    CHECK(strcmp(path, dir) == 0);
    jep_free(composer);
    return 0;
}
