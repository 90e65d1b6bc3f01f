#include "rollout/fingerprint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "base/alloc.h"

enum { PIECE = 1 << 20 };

static int64_t mtime_of(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int open_model(const char *path, struct stat *st, struct err *err)
{
    /* O_NONBLOCK: a FIFO must not make us wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set(err, 400, "cannot open the model file %s: %s", path, strerror(errno));
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
        close(fd);
        return err_set(err, 400, "%s is not a regular file", path);
    }
    return fd;
}

int fingerprint_model_file(const char *path, struct err *err)
{
    struct stat st;
    char magic[4];

    if (path[0] != '/')
        return err_set(err, 400, "the path %s is not absolute", path);
    int fd = open_model(path, &st, err);
    if (fd < 0)
        return -1;
    ssize_t n = pread(fd, magic, sizeof(magic), 0);
    close(fd);
    if (n < 0)
        return err_set(err, 400, "cannot read the model file %s: %s", path, strerror(errno));
    if (n != sizeof(magic) || memcmp(magic, "GGUF", sizeof(magic)) != 0)
        return err_set(err, 400, "%s is not a GGUF file: it does not begin with \"GGUF\"%s", path,
                       n == 0 ? " (it is empty)" : "");
    return 0;
}

static int digest_fd(int fd, EVP_MD_CTX *ctx, const atomic_bool *stop, const char *path,
                     struct err *err)
{
    char *piece = mem_alloc(PIECE);
    ssize_t n = 0;

    while (!(stop && atomic_load(stop)) && (n = read(fd, piece, PIECE)) > 0)
        ALWAYS(EVP_DigestUpdate(ctx, piece, (size_t)n) == 1);
    int saved = errno;
    free(piece);
    if (stop && atomic_load(stop))
        return err_set(err, 503, "reading %s was given up", path);
    if (n < 0)
        return err_set(err, 500, "cannot read the model file %s: %s", path, strerror(saved));
    return 0;
}

int fingerprint_read(const char *path, struct fingerprint *out, const atomic_bool *stop,
                     struct err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct stat before, after;
    int fd = open_model(path, &before, err);

    if (fd < 0)
        return -1;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ALWAYS(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    int result = digest_fd(fd, ctx, stop, path, err);
    ALWAYS(EVP_DigestFinal_ex(ctx, digest, NULL) == 1);
    EVP_MD_CTX_free(ctx);
    if (result == 0 && (fstat(fd, &after) != 0 || after.st_size != before.st_size ||
                        mtime_of(&after) != mtime_of(&before)))
        result = err_set(err, 409,
                         "%s changed while it was read; deploy it again when it is "
                         "complete",
                         path);
    close(fd);
    if (result != 0)
        return -1;
    for (int i = 0; i < FINGERPRINT_HEX / 2; i++)
        snprintf(out->sha256 + 2 * i, 3, "%02x", digest[i]);
    out->size = (uint64_t)before.st_size;
    out->mtime_ns = mtime_of(&before);
    return 0;
}

int fingerprint_same_file(const char *path, const struct fingerprint *f, struct err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return err_set(err, 409, "cannot find the model file %s: %s", path, strerror(errno));
    return (uint64_t)st.st_size == f->size && mtime_of(&st) == f->mtime_ns;
}

void fingerprint_text(const struct fingerprint *f, char out[FINGERPRINT_TEXT_MAX])
{
    snprintf(out, FINGERPRINT_TEXT_MAX, "%s %" PRIu64 " %" PRId64, f->sha256, f->size, f->mtime_ns);
}

bool fingerprint_parse(const char *text, struct fingerprint *out)
{
    int end = 0;

    return text &&
           sscanf(text, "%64[0-9a-f] %" SCNu64 " %" SCNd64 "%n", out->sha256, &out->size,
                  &out->mtime_ns, &end) == 3 &&
           strlen(out->sha256) == FINGERPRINT_HEX && text[end] == '\0';
}
