/* A test double of NVIDIA's driver library in host memory, to run the real bindings against: their argument
   conversions, error codes and handles. Work runs when it is queued. It stands in for libcuda.so.1, built with
   gcc -shared -fPIC -o libcuda.so.1 libcuda.c -ldl

   One GPU, one kernel: scale(float *x, float factor, int n). Names and codes are those of the binary interface. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long long u64;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, BAD_HANDLE = 400, NOT_FOUND = 500, BROKEN_CAPTURE = 901 };
enum { LIMIT = 1 << 24 };

/* For tests, by ctypes ---------------------------------------------------------------------------------------- */
static char failing[64];
static int failing_code, failing_after, sleep_ms, retained;
static int living[6]; /* memory, pinned, stream, event, module, graph */
static size_t used;
static __thread int current; /* depth of this thread's stack of contexts */

void fake_fail(const char *function, int code, int after) { /* once, when that many calls have passed */
  snprintf(failing, sizeof failing, "%s", function);
  failing_code = code, failing_after = after;
}
void fake_sleep(int ms) { sleep_ms = ms; } /* cuStreamSynchronize takes that long */
int fake_living(int kind) { return living[kind]; }
int fake_retained(void) { return retained; }
int fake_depth(void) { return current; }

static int asked(const char *function) { /* to fail: its name with or without _v2 */
  size_t n = strlen(failing);
  if (!n || strncmp(function, failing, n) || (function[n] && strncmp(function + n, "_v", 2))) return OK;
  if (failing_after--) return OK;
  failing[0] = 0;
  return failing_code;
}
#define ENTER do { int code = asked(__func__); if (code) return code; } while (0)
#define INSIDE do { ENTER; if (!current) return NO_CONTEXT; } while (0)

/* Things: a magic number tells them from what was destroyed ----------------------------------------------------- */
typedef struct Work { struct Work *next; int kind, value; void *to; const void *from; size_t size; float factor; } Work;
typedef struct { int kind; int capturing; int broken; Work *first, **last; unsigned flags; double ms; } Thing;
enum { STREAM = 2, EVENT = 3, MODULE = 4, GRAPH = 5, TEMPLATE = 6, FUNCTION = 7 };
static Thing scale_kernel = {.kind = FUNCTION};
static __thread Thing *captured; /* the stream this thread captures */

static Thing *make(int kind) {
  Thing *thing = calloc(1, sizeof *thing);
  thing->kind = kind;
  if (kind < 6) living[kind]++;
  return thing;
}
static int drop(Thing *thing, int kind) {
  if (!thing || thing->kind != kind) return BAD_HANDLE;
  if (kind < 6) living[kind]--;
  thing->kind = 0; /* kept, so that using it is noticed */
  return OK;
}
static void run(const Work *work) {
  if (work->kind == 0) memcpy(work->to, work->from, work->size);
  if (work->kind == 1) memset(work->to, work->value, work->size);
  if (work->kind == 2) for (size_t i = 0; i < work->size; i++) ((float *)work->to)[i] *= work->factor;
}
static int queue(Thing *stream, Work work) {
  if (!stream || stream->kind != STREAM) return BAD_HANDLE;
  if (!stream->capturing) { run(&work); return OK; }
  *stream->last = malloc(sizeof work);
  **stream->last = work;
  stream->last = &(*stream->last)->next;
  return OK;
}
static int uncapturable(void) { /* in thread-local mode such calls spoil the capture of their own thread */
  if (captured) captured->broken = 1;
  return captured ? 900 : OK;
}
#define UNCAPTURABLE do { int code = uncapturable(); if (code) return code; } while (0)

/* The driver ------------------------------------------------------------------------------------------------------ */
int cuInit(unsigned flags) { ENTER; (void)flags; return OK; }
int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
int cuGetExportTable(const void **table, const void *id) { (void)id; *table = NULL; return NOT_FOUND; } /* NVRTC asks */
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *d, int i) { ENTER; *d = i; return i ? 101 : OK; }
int cuDeviceGetName(char *s, int n, int d) { (void)d; snprintf(s, n, "libcuda.c (test double)"); return OK; }
int cuDeviceTotalMem_v2(size_t *b, int d) { (void)d; *b = LIMIT; return OK; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  (void)d;
  *v = a == 75 ? 8 : a == 76 ? 6 : a == 19; /* compute capability 8.6, maps host memory, not integrated */
  return OK;
}
int cuDeviceComputeCapability(int *a, int *b, int d) { (void)d; *a = 8; *b = 6; return OK; }
int cuDevicePrimaryCtxRetain(void **c, int d) { ENTER; (void)d; retained++; *c = &retained; return OK; }
int cuDevicePrimaryCtxRelease_v2(int d) { (void)d; retained--; return OK; }
int cuCtxPushCurrent_v2(void *c) { ENTER; if (c != &retained) return NO_CONTEXT; current++; return OK; }
int cuCtxPopCurrent_v2(void **c) { ENTER; if (!current) return NO_CONTEXT; current--; if (c) *c = &retained; return OK; }
int cuCtxGetDevice(int *d) { INSIDE; *d = 0; return OK; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { INSIDE; *f = LIMIT - used; *t = LIMIT; return OK; }

typedef struct { size_t size; char pad[248]; } Header;
int cuMemAlloc_v2(u64 *p, size_t n) {
  INSIDE; UNCAPTURABLE;
  if (!n) return INVALID;
  if (used + n > LIMIT) return NO_MEMORY;
  Header *block = aligned_alloc(256, (sizeof *block + n + 255) / 256 * 256);
  block->size = n; used += n; living[0]++;
  *p = (u64)(uintptr_t)(block + 1);
  return OK;
}
int cuMemFree_v2(u64 p) {
  INSIDE; UNCAPTURABLE;
  Header *block = (Header *)(uintptr_t)p - 1;
  if (!block->size) return INVALID;
  used -= block->size; block->size = 0; living[0]--; /* kept: see drop */
  return OK;
}
int cuMemHostAlloc(void **p, size_t n, unsigned flags) {
  INSIDE; UNCAPTURABLE; (void)flags;
  *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  living[1]++;
  return OK;
}
int cuMemHostGetDevicePointer_v2(u64 *d, void *p, unsigned flags) { INSIDE; (void)flags; *d = (u64)(uintptr_t)p; return OK; }
int cuMemFreeHost(void *p) { INSIDE; UNCAPTURABLE; free(p); living[1]--; return OK; }

int cuStreamCreate(void **s, unsigned flags) { INSIDE; Thing *t = make(STREAM); t->flags = flags; *s = t; return OK; }
int cuStreamDestroy_v2(Thing *s) { INSIDE; return drop(s, STREAM); }
int cuStreamGetFlags(Thing *s, unsigned *flags) { *flags = s->flags; return OK; }
int cuStreamSynchronize(Thing *s) {
  INSIDE;
  if (s->kind != STREAM) return BAD_HANDLE;
  UNCAPTURABLE;
  nanosleep(&(struct timespec){sleep_ms / 1000, sleep_ms % 1000 * 1000000L}, NULL);
  return OK;
}
int cuStreamWaitEvent(Thing *s, Thing *e, unsigned flags) {
  INSIDE; (void)flags;
  return s->kind == STREAM && e->kind == EVENT ? OK : BAD_HANDLE;
}
int cuEventCreate(void **e, unsigned flags) { INSIDE; Thing *t = make(EVENT); t->flags = flags; *e = t; return OK; }
int cuEventDestroy_v2(Thing *e) { INSIDE; return drop(e, EVENT); }
int cuEventRecord(Thing *e, Thing *s) {
  INSIDE;
  if (e->kind != EVENT || s->kind != STREAM) return BAD_HANDLE;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  e->ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  return OK;
}
int cuEventSynchronize(Thing *e) { INSIDE; return e->kind == EVENT ? OK : BAD_HANDLE; }
int cuEventElapsedTime(float *ms, Thing *a, Thing *b) {
  INSIDE;
  if (a->kind != EVENT || b->kind != EVENT || (a->flags | b->flags) & 2) return BAD_HANDLE;
  *ms = (float)(b->ms - a->ms);
  return OK;
}
int cuEventElapsedTime_v2(float *ms, Thing *a, Thing *b) { return cuEventElapsedTime(ms, a, b); }
int cuMemcpyHtoDAsync_v2(u64 d, const void *h, size_t n, Thing *s) {
  INSIDE;
  return queue(s, (Work){.to = (void *)(uintptr_t)d, .from = h, .size = n});
}
int cuMemcpyDtoHAsync_v2(void *h, u64 d, size_t n, Thing *s) {
  INSIDE;
  return queue(s, (Work){.to = h, .from = (void *)(uintptr_t)d, .size = n});
}
int cuMemsetD8Async(u64 d, unsigned char value, size_t n, Thing *s) {
  INSIDE;
  return queue(s, (Work){.kind = 1, .to = (void *)(uintptr_t)d, .value = value, .size = n});
}
int cuModuleLoadData(void **m, const void *image) {
  INSIDE;
  if (memcmp(image, "\177ELF", 4) && memcmp(image, "//", 2)) return 200;
  *m = make(MODULE);
  return OK;
}
int cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *options, void **values) {
  for (unsigned i = 0; i < n; i++) if (options[i] == 4 || options[i] == 6) values[i] = 0; /* sizes of the logs */
  return cuModuleLoadData(m, image);
}
int cuModuleUnload(Thing *m) { INSIDE; return drop(m, MODULE); }
int cuModuleGetFunction(void **f, Thing *m, const char *name) {
  INSIDE;
  if (m->kind != MODULE) return BAD_HANDLE;
  *f = &scale_kernel;
  return strcmp(name, "scale") ? NOT_FOUND : OK;
}
int cuFuncSetBlockShape(void *f, int x, int y, int z) { (void)f, (void)x, (void)y, (void)z; return OK; }
int cuLaunchKernel(Thing *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Thing *s, void **parameters, void **extra) {
  INSIDE; (void)shared;
  if (f != &scale_kernel || gx * gy * gz == 0 || bx * by * bz == 0 || !parameters == !extra) return INVALID;
  char *packed = extra ? extra[1] : NULL; /* {1, buffer, 2, &size, 0}; pointer, float and int lie at 0, 8, 12 */
  if (packed && *(size_t *)extra[3] != 16) return INVALID;
  u64 x = *(u64 *)(packed ? packed : parameters[0]);
  float factor = *(float *)(packed ? packed + 8 : parameters[1]);
  int n = *(int *)(packed ? packed + 12 : parameters[2]);
  return queue(s, (Work){.kind = 2, .to = (void *)(uintptr_t)x, .factor = factor, .size = (size_t)n});
}
int cuStreamBeginCapture_v2(Thing *s, int mode) {
  INSIDE;
  if (s->capturing || mode != 1) return INVALID; /* 1: thread-local */
  s->capturing = 1; s->broken = 0; s->first = NULL; s->last = &s->first; captured = s;
  return OK;
}
int cuStreamEndCapture(Thing *s, void **g) {
  INSIDE;
  if (!s->capturing) return INVALID;
  s->capturing = 0; captured = NULL; *g = NULL;
  if (s->broken) return BROKEN_CAPTURE;
  Thing *graph = make(TEMPLATE);
  graph->first = s->first;
  *g = graph;
  return OK;
}
int cuGraphInstantiateWithFlags(void **x, Thing *g, u64 flags) {
  INSIDE;
  if (g->kind != TEMPLATE || flags) return INVALID;
  Thing *graph = make(GRAPH);
  graph->first = g->first;
  *x = graph;
  return OK;
}
int cuGraphDestroy(Thing *g) { return drop(g, TEMPLATE); }
int cuGraphExecDestroy(Thing *g) { return drop(g, GRAPH); }
int cuGraphLaunch(Thing *g, Thing *s) {
  INSIDE;
  if (g->kind != GRAPH) return BAD_HANDLE;
  for (Work *work = g->first; work; work = work->next) queue(s, *work);
  return OK;
}
static const struct { int code; const char *name, *text; } errors[] = {
  {OK, "CUDA_SUCCESS", "no error"},
  {INVALID, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {NO_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
  {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
  {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
  {NO_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {BAD_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
  {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
  {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
};
static int error(int code, const char **out, int text) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].code == code) { *out = text ? errors[i].text : errors[i].name; return OK; }
  *out = "unrecognized error code";
  return INVALID;
}
int cuGetErrorName(int code, const char **name) { return error(code, name, 0); }
int cuGetErrorString(int code, const char **text) { return error(code, text, 1); }
int cuGetProcAddress_v2(const char *symbol, void **function, int version, u64 flags, int *status) {
  (void)version, (void)flags;
  char versioned[128];
  if (!strcmp(symbol, "cuGraphInstantiate")) symbol = "cuGraphInstantiateWithFlags";
  snprintf(versioned, sizeof versioned, "%s_v2", symbol);
  Dl_info own; /* only this library's own functions */
  dladdr((void *)cuGetProcAddress_v2, &own);
  void *self = dlopen(own.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  *function = dlsym(self, versioned);
  if (!*function) *function = dlsym(self, symbol);
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char *symbol, void **function, int version, u64 flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
