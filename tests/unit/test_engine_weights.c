/* Every shorter file is refused with a sentence, and no byte of a header brings the walk down. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/weights.h"
#include "test.h"

#define V1 SOURCE_ROOT "/models/tiny-mt-v1.gguf"

static char folder[] = "/tmp/segue-weights-XXXXXX";
static char path[96];
static char *whole;
static size_t whole_n;

static void put(const char *p, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static int begin(void **state)
{
    struct stat st;
    FILE *f = fopen(V1, "rb");

    if (!f || fstat(fileno(f), &st) || !mkdtemp(folder))
        return -1;
    whole_n = (size_t)st.st_size;
    whole = mem_alloc(whole_n);
    snprintf(path, sizeof(path), "%s/model.gguf", folder);
    bool ok = fread(whole, 1, whole_n, f) == whole_n;
    fclose(f);
    return ok ? 0 : -1;
}

static int end(void **state)
{
    unlink(path);
    rmdir(folder);
    free(whole);
    return 0;
}

static void a_whole_file_is_accepted(void **state)
{
    struct weights w;
    struct err err;

    assert_int_equal(weights_check(V1, &w, &err), 0);
    assert_int_equal(w.bytes, whole_n);
    assert_int_equal(w.version, 3);
    assert_true(w.ntensors > 10);
}

static void every_shorter_file_is_refused(void **state)
{
    struct weights w;
    struct err err;

    put(whole, whole_n);
    for (size_t n = whole_n - 1; n > 0; n -= n > 4096 ? n / 13 : n > 600 ? 251 : 1) {
        assert_int_equal(truncate(path, (off_t)n), 0);
        err.text[0] = '\0';
        assert_int_equal(weights_check(path, &w, &err), -1);
        assert_non_null(strstr(err.text, path));
        assert_non_null(strstr(err.text, "truncated"));
    }
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(weights_check(path, &w, &err), -1);
    assert_non_null(strstr(err.text, "empty"));
}

/* Changed bytes in the header may be noticed or not; they must not crash or hang us. */
static void a_damaged_header_is_walked_safely(void **state)
{
    enum { HEAD = 4000, ROUNDS = 3000 };
    unsigned long random = 7;
    struct weights w;
    struct err err;
    int refused = 0;

    put(whole, whole_n);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        off_t at = (off_t)((random >> 33) % HEAD);
        unsigned char byte = i % 3 ? (unsigned char)(random >> 25) : 0xff;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        refused += weights_check(path, &w, &err) != 0;
        assert_int_equal(pwrite(fd, whole + at, 1, at), 1);
    }
    close(fd);
    assert_true(refused > ROUNDS / 100);
    assert_int_equal(weights_check(path, &w, &err), 0);
}

/* The file with eight bytes of its header made 0xff. */
static int check_with_ones_at(off_t at, struct err *err)
{
    struct weights w;

    put(whole, whole_n);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, at), 8);
    close(fd);
    return weights_check(path, &w, err);
}

static void absurd_sizes_are_refused(void **state)
{
    struct err err;

    assert_int_equal(check_with_ones_at(8, &err), -1);  /* tensors */
    assert_int_equal(check_with_ones_at(16, &err), -1); /* metadata entries */
    assert_int_equal(check_with_ones_at(24, &err), -1); /* length of the first key */
    assert_non_null(strstr(err.text, "metadata entry 1 of"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file_is_accepted),
        cmocka_unit_test(every_shorter_file_is_refused),
        cmocka_unit_test(a_damaged_header_is_walked_safely),
        cmocka_unit_test(absurd_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
