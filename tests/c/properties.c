/* Antithesis' SDK under load and in the wrong hands: nothing is lost or torn, whoever forks meanwhile,
 * and no argument harms.
 *
 *   properties DIRECTORY threads|forks|arguments */
#include "check.h"

#define SHARED "what every thread asserts"

/* sdk.jsonl of this process. */
static char lines[PATH_MAX];

/* Sends the lines to a file, before the first call. */
static void begin_file(const char *dir) {
    CHECK(mkdir(dir, 0700) == 0);
    CHECK(setenv("ANTITHESIS_OUTPUT_DIR", dir, 1) == 0);
    snprintf(lines, sizeof lines, "%s/sdk.jsonl", dir);
}

static void assertion(char *line, size_t size, const char *message, int condition,
                      const char *details) {
    snprintf(line, size,
             "{\"antithesis_assert\":{\"assert_type\":\"always\",\"display_type\":\"Always\","
             "\"condition\":%s,\"message\":\"%s\",\"location\":{\"class\":\"\",\"function\":\"\","
             "\"file\":\"\",\"begin_line\":0,\"begin_column\":0},\"hit\":true,\"must_hit\":true,"
             "\"id\":\"%s\",\"details\":%s}}\n",
             condition ? "true" : "false", message, message, details);
}

static int is_version(const char *line) {
    static const char begin[] = "{\"antithesis_sdk\":{\"language\":{\"name\":\"C\",";
    return strncmp(line, begin, sizeof begin - 1) == 0 && line[strlen(line) - 1] == '\n';
}

/* ---- threads ------------------------------------------------------------------------------ */

enum { THREADS = 8, HITS_OF_EACH_PROPERTY = 500 };

static int hits; /* of each thread */

/* Details that do not fit a page. */
static char long_details[6000];

static void *hit_often(void *argument) {
    int thread = *(int *)argument;
    char message[64];
    for (int i = 0; i < hits; i++) {
        /* Every five-hundredth hit is the first of a property of its own; the others are repetitions, and
         * every second of them of a property that all threads share. */
        snprintf(message, sizeof message, "property %d of thread %d", i / HITS_OF_EACH_PROPERTY,
                 thread);
        const char *which = i % 2 ? SHARED : message;
        CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, which, 1, long_details));
    }
    CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, SHARED, 0, long_details));
    return NULL;
}

static void nothing_is_lost_or_torn(void) {
    pthread_t threads[THREADS];
    int numbers[THREADS];
    hits = scaled(1000000 / THREADS);
    long_details[0] = '{';
    memcpy(long_details + 1, "\"text\":\"", 8);
    memset(long_details + 9, 'x', sizeof long_details - 12);
    memcpy(long_details + sizeof long_details - 3, "\"}", 3);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, hit_often, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);

    int properties = (hits + HITS_OF_EACH_PROPERTY - 1) / HITS_OF_EACH_PROPERTY;
    char *seen = calloc((size_t)(THREADS * properties), 1);
    char *line = NULL, wanted[sizeof long_details + 512], message[64];
    size_t room = 0;
    int shared[2] = {0, 0}, own = 0;
    FILE *file = fopen(lines, "re");
    CHECK(seen != NULL && file != NULL);
    CHECK(getline(&line, &room, file) > 0 && is_version(line));
    while (getline(&line, &room, file) > 0) {
        const char *found = strstr(line, "\"message\":\"");
        int property, thread;
        CHECK(found != NULL);
        if (sscanf(found, "\"message\":\"property %d of thread %d\"", &property, &thread) == 2) {
            CHECK(thread >= 0 && thread < THREADS && property >= 0 && property < properties);
            CHECK(!seen[thread * properties + property]);
            seen[thread * properties + property] = 1;
            own++;
            snprintf(message, sizeof message, "property %d of thread %d", property, thread);
            assertion(wanted, sizeof wanted, message, 1, long_details);
        } else {
            int condition = strstr(line, "\"condition\":true") != NULL;
            shared[condition]++;
            assertion(wanted, sizeof wanted, SHARED, condition, long_details);
        }
        CHECK(strcmp(line, wanted) == 0);
    }
    CHECK(own == THREADS * properties);
    CHECK(shared[0] == 1 && shared[1] == 1);
    free(line);
    free(seen);
    fclose(file);
}

/* ---- forks -------------------------------------------------------------------------------- */

static int forked_enough;

static void *hit_until_told(void *argument) {
    char message[64];
    for (int i = 0; !__atomic_load_n(&forked_enough, __ATOMIC_RELAXED); i++) {
        /* New properties, so that the library's locks are taken in every way. */
        snprintf(message, sizeof message, "%s %d", (const char *)argument, i);
        CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, message, 1, "{}"));
        CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, SHARED, 1, "{}"));
    }
    return NULL;
}

static void a_child_goes_on(void) {
    static char names[3][2] = {"a", "b", "c"};
    pthread_t threads[3];
    int children = scaled(200), versions = 0, from_children = 0, shared = 0;
    uint64_t before, *randoms = calloc((size_t)children, sizeof *randoms);
    int to_parent[2];
    CHECK(randoms != NULL && pipe2(to_parent, O_CLOEXEC) == 0);
    CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, SHARED, 1, "{}"));
    CHECK_CODE(JEP_OK, jep_random(&before));
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, hit_until_told, names[i]) == 0);
    }
    for (int i = 0; i < children; i++) {
        pid_t child = fork();
        CHECK(child != -1);
        if (child == 0) {
            char message[64];
            uint64_t random;
            alarm(60); /* A child that waits for a lock of its parent's waits for ever. */
            snprintf(message, sizeof message, "child %d", i);
            CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, SHARED, 1, "{}"));
            CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, message, 1, "{}"));
            CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, message, 1, "{}"));
            CHECK_CODE(JEP_OK, jep_random(&random));
            CHECK(write(to_parent[1], &random, sizeof random) == sizeof random);
            end_child();
        }
        CHECK(reap(child) == 0);
        CHECK(read_some(to_parent[0], &randoms[i], sizeof *randoms) == sizeof *randoms);
        CHECK(randoms[i] != before && (i == 0 || randoms[i] != randoms[i - 1]));
    }
    __atomic_store_n(&forked_enough, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);

    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen(lines, "re");
    CHECK(file != NULL);
    while (getline(&line, &room, file) > 0) {
        /* An empty one, where a child began while another's line was being written. */
        if (strcmp(line, "\n") == 0) continue;
        CHECK(line[0] == '{' && line[strlen(line) - 1] == '\n');
        versions += is_version(line);
        from_children += strstr(line, "\"message\":\"child ") != NULL;
        shared += strstr(line, "\"message\":\"" SHARED "\"") != NULL;
    }
    CHECK(versions == children + 1);
    CHECK(from_children == children);
    CHECK(shared == children + 1);
    free(line);
    free(randoms);
    fclose(file);
}

/* ---- arguments ---------------------------------------------------------------------------- */

static void no_argument_harms(void) {
    uint64_t out = 0;
    CHECK_CODE(JEP_ERR_INVALID, jep_language(NULL, ""));
    CHECK_CODE(JEP_ERR_INVALID, jep_language("C", NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_language("\xff", ""));
    CHECK_CODE(JEP_ERR_INVALID, jep_event(NULL, NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_event("\xff", NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_random(NULL));
    static const int32_t no_types[] = {INT32_MIN, -1, 0, 6, INT32_MAX};
    for (size_t i = 0; i < sizeof no_types / sizeof *no_types; i++) {
        CHECK_CODE(JEP_ERR_INVALID, jep_declare(no_types[i], "m"));
        CHECK_CODE(JEP_ERR_INVALID, jep_assert(no_types[i], "m", 0, NULL));
    }
    CHECK_CODE(JEP_ERR_INVALID, jep_declare(JEP_ASSERT_ALWAYS, NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_declare(JEP_ASSERT_ALWAYS, "\xff"));
    CHECK_CODE(JEP_ERR_INVALID, jep_assert(JEP_ASSERT_ALWAYS, NULL, 0, NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_assert(JEP_ASSERT_ALWAYS, "\xff", 0, NULL));
    CHECK(access(lines, F_OK) == -1 && errno == ENOENT);
    /* What is bad in the details costs the details, and nothing else. */
    CHECK_CODE(JEP_ERR_INVALID, jep_setup_complete("3"));
    CHECK_CODE(JEP_ERR_INVALID, jep_event("event", "{\"a\":\"\xff\"}"));
    CHECK_CODE(JEP_ERR_INVALID, jep_assert(JEP_ASSERT_ALWAYS, "m", 0, "{\"a\":NaN}"));
    CHECK_CODE(JEP_OK, jep_assert(JEP_ASSERT_ALWAYS, "m", -1, "{\n\"a\":\t1}"));
    CHECK_CODE(JEP_OK, jep_random(&out));

    char *line = NULL, wanted[512];
    size_t room = 0;
    FILE *file = fopen(lines, "re");
    CHECK(file != NULL);
    CHECK(getline(&line, &room, file) > 0 && is_version(line));
    CHECK(getline(&line, &room, file) > 0);
    CHECK(strcmp(line, "{\"antithesis_setup\":{\"status\":\"complete\",\"details\":null}}\n") == 0);
    CHECK(getline(&line, &room, file) > 0 && strcmp(line, "{\"event\":{}}\n") == 0);
    assertion(wanted, sizeof wanted, "m", 0, "null");
    CHECK(getline(&line, &room, file) > 0 && strcmp(line, wanted) == 0);
    assertion(wanted, sizeof wanted, "m", 1, "{ \"a\":\t1}");
    CHECK(getline(&line, &room, file) > 0 && strcmp(line, wanted) == 0);
    CHECK(getline(&line, &room, file) == -1);
    free(line);
    fclose(file);
}

int main(int argc, char **argv) {
    begin_file(begin(argc, argv));
    CHECK(argc == 3);
    if (strcmp(argv[2], "threads") == 0) nothing_is_lost_or_torn();
    else if (strcmp(argv[2], "forks") == 0) a_child_goes_on();
    else if (strcmp(argv[2], "arguments") == 0) no_argument_harms();
    else fail(__FILE__, __LINE__, "which test?");
    return 0;
}
