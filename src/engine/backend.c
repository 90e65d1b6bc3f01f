/*
 * backend - see backend.h.
 *
 * The prebuilt libllama has one library for each CPU level beside it and picks
 * the best at run time; so the functions of the CPU back-end (the thread pool)
 * can only be had by name.
 */
#include "engine/backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

enum { LINES = 3, LINE_MAX_BYTES = 256 };

static struct {
    pthread_mutex_t lock;
    bool verbose;
    char line[LINES][LINE_MAX_BYTES]; /* the last error lines; the oldest is overwritten */
    unsigned nlines;                  /* written so far */
    enum ggml_log_level level;        /* of the line that is being continued */
} words = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* libllama prefixes its lines with the C++ function; people do not need it. */
static const char *without_function(const char *text)
{
    const char *colon = strstr(text, ": ");

    if (!colon || memchr(text, ' ', (size_t)(colon - text)))
        return text;
    return colon + 2;
}

static void on_log(enum ggml_log_level level, const char *text, void *arg)
{
    size_t n = strcspn(text, "\n");

    pthread_mutex_lock(&words.lock);
    if (level == GGML_LOG_LEVEL_CONT)
        level = words.level;
    words.level = level;
    if (level == GGML_LOG_LEVEL_ERROR && n) {
        const char *plain = without_function(text);
        snprintf(words.line[words.nlines++ % LINES], LINE_MAX_BYTES, "%.*s",
                 (int)(n - (size_t)(plain - text)), plain);
    }
    bool pass_on = words.verbose && n;
    pthread_mutex_unlock(&words.lock);
    if (pass_on)
        log_debug("libllama: %.*s", (int)n, text);
}

void backend_words_clear(void)
{
    pthread_mutex_lock(&words.lock);
    words.nlines = 0;
    pthread_mutex_unlock(&words.lock);
}

void backend_words(char out[BACKEND_WORDS_MAX])
{
    size_t n = 0;

    out[0] = '\0';
    pthread_mutex_lock(&words.lock);
    unsigned first = words.nlines > LINES ? words.nlines - LINES : 0;
    for (unsigned i = first; i < words.nlines && n < BACKEND_WORDS_MAX; i++)
        n += (size_t)snprintf(out + n, BACKEND_WORDS_MAX - n, "%s%s", i > first ? "; " : "",
                              words.line[i % LINES]);
    pthread_mutex_unlock(&words.lock);
}

/* The folder that libllama was loaded from; the caller frees it. NULL: unknown. */
static char *library_folder(void)
{
    Dl_info info;

    if (!dladdr((void *)llama_backend_init, &info) || !info.dli_fname)
        return NULL;
    char *path = realpath(info.dli_fname, NULL);
    char *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        *slash = '\0';
    return path;
}

int backend_start(const char *folder, bool verbose, struct err *err)
{
    char *found = folder ? NULL : library_folder();

    words.verbose = verbose;
    llama_log_set(on_log, NULL);
    if (!folder)
        folder = found;
    if (folder)
        ggml_backend_load_all_from_path(folder);
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU))
        ggml_backend_load_all(); /* where a system's own libllama keeps them */
    int rc = 0;
    if (!ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU))
        rc = err_set(err, 500,
                     "no CPU back-end of libllama (libggml-cpu-*.so) for this processor in %s; "
                     "--backends FOLDER says where they are",
                     folder ? folder : "its folder");
    else
        llama_backend_init();
    free(found);
    return rc;
}

void backend_stop(void)
{
    llama_backend_free();
}

static void *cpu_function(const char *name)
{
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);

    return cpu ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name) : NULL;
}

struct ggml_threadpool *backend_pool_new(int n, unsigned poll)
{
    struct ggml_threadpool *(*make)(struct ggml_threadpool_params *) =
        (struct ggml_threadpool * (*)(struct ggml_threadpool_params *))
            cpu_function("ggml_threadpool_new");

    if (n <= 1 || !make)
        return NULL;
    struct ggml_threadpool_params params = ggml_threadpool_params_default(n);
    params.poll = poll;
    return make(&params);
}

void backend_pool_free(struct ggml_threadpool *pool)
{
    void (*end)(struct ggml_threadpool *) =
        (void (*)(struct ggml_threadpool *))cpu_function("ggml_threadpool_free");

    if (pool && end)
        end(pool);
}
