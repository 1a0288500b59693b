/* A libnvidia-ml.so.1 for tests: it answers from a state file (path in NVML_STATE) that is read again on every call.
 * Lines are `key=value`; keys of a device begin with `dev<index>.`, of a MIG slice with `dev<index>.mig<number>.`.
 * A key that is not there is NOT_SUPPORTED; a value `!N` is return code N; `lost=1` makes every call on the device fail.
 * Built with -DOLD_DRIVER it lacks what drivers before 510 lack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int ret;
typedef void *dev;
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10, LOST = 15 };
#define SLICE 1000

static int find(const char *key, char *out, size_t size) {
    const char *path = getenv("NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    size_t length = strlen(key);
    int found = 0;
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == '=') {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", line + length + 1);
            found = 1;
        }
    fclose(file);
    return found;
}

static long number(const char *key, long otherwise) {
    char text[512];
    return find(key, text, sizeof text) ? strtol(text, NULL, 0) : otherwise;
}

static ret text_of(dev d, const char *field, char *out, size_t size) {
    char key[128];
    long n = (long)d;
    long card = n >= SLICE ? n / SLICE - 1 : n - 1;
    snprintf(key, sizeof key, "dev%ld.lost", card);
    if (number(key, 0)) return LOST;
    if (n >= SLICE)
        snprintf(key, sizeof key, "dev%ld.mig%ld.%s", card, n % SLICE, field);
    else
        snprintf(key, sizeof key, "dev%ld.%s", card, field);
    if (!find(key, out, size)) return NOT_SUPPORTED;
    return out[0] == '!' ? atoi(out + 1) : OK;
}

static ret uint_of(dev d, const char *field, unsigned *out) {
    char text[512];
    ret r = text_of(d, field, text, sizeof text);
    if (r == OK) *out = (unsigned)strtoul(text, NULL, 0);
    return r;
}

ret nvmlInitWithFlags(unsigned flags) { return (ret)number("init", 0); }
ret nvmlInit_v2(void) { return (ret)number("init", 0); }
ret nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(ret r) { return "stub error"; }
static ret system_text(const char *key, char *out, unsigned size) { return find(key, out, size) ? OK : NOT_SUPPORTED; }
ret nvmlSystemGetDriverVersion(char *out, unsigned size) { return system_text("driver", out, size); }
ret nvmlSystemGetNVMLVersion(char *out, unsigned size) { return system_text("nvml", out, size); }
ret nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = (int)number("cuda", 0); return *out ? OK : NOT_SUPPORTED; }
ret nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)number("count", 0); return OK; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, dev *out) {
    char key[64];
    long code;
    if (index >= (unsigned)number("count", 0)) return INVALID;
    snprintf(key, sizeof key, "dev%u.handle", index);
    code = number(key, 0);
    *out = (dev)(long)(index + 1);
    return (ret)code;
}

#define TEXT(name, field) ret name(dev d, char *out, unsigned size) { return text_of(d, field, out, size); }
#define UINT(name, field) ret name(dev d, unsigned *out) { return uint_of(d, field, out); }
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
UINT(nvmlDeviceGetArchitecture, "architecture")
UINT(nvmlDeviceGetBrand, "brand")
UINT(nvmlDeviceGetMemoryBusWidth, "bus_width")
UINT(nvmlDeviceGetComputeMode, "compute_mode")
UINT(nvmlDeviceGetNumGpuCores, "cores")
UINT(nvmlDeviceGetDisplayActive, "display_active")
UINT(nvmlDeviceGetNumaNodeId, "numa_node")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
UINT(nvmlDeviceGetPersistenceMode, "persistence")
UINT(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
UINT(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pending")
UINT(nvmlDeviceGetMaxMigDeviceCount, "mig_most")
UINT(nvmlDeviceGetGpuInstanceId, "gi")
UINT(nvmlDeviceGetComputeInstanceId, "ci")
ret nvmlDeviceGetMaxClockInfo(dev d, unsigned kind, unsigned *out) { return uint_of(d, "clock", out); }
ret nvmlDeviceGetTemperature(dev d, unsigned sensor, unsigned *out) { return uint_of(d, "temperature", out); }
ret nvmlDeviceGetTemperatureThreshold(dev d, unsigned kind, unsigned *out) { return uint_of(d, "slowdown", out); }
ret nvmlDeviceGetVirtualizationMode(dev d, unsigned *out) { return uint_of(d, "virtualization", out); }
static ret pair(dev d, const char *field, unsigned *one, unsigned *two) {
    char text[512];
    ret r = text_of(d, field, text, sizeof text);
    if (r == OK && sscanf(text, "%u,%u", one, two) != 2) return INVALID;
    return r;
}
ret nvmlDeviceGetCudaComputeCapability(dev d, int *a, int *b) { return pair(d, "capability", (unsigned *)a, (unsigned *)b); }
ret nvmlDeviceGetEccMode(dev d, unsigned *a, unsigned *b) { return pair(d, "ecc", a, b); }
ret nvmlDeviceGetMigMode(dev d, unsigned *a, unsigned *b) { return pair(d, "mig", a, b); }
ret nvmlDeviceGetTotalEccErrors(dev d, unsigned type, unsigned counter, unsigned long long *out) {
    unsigned value = 0;
    ret r = uint_of(d, "uncorrected", &value);
    *out = value;
    return r;
}
ret nvmlDeviceGetRemappedRows(dev d, unsigned *c, unsigned *u, unsigned *pending, unsigned *failure) {
    char text[512];
    ret r = text_of(d, "rows", text, sizeof text);
    if (r == OK && sscanf(text, "%u,%u,%u,%u", c, u, pending, failure) != 4) return INVALID;
    return r;
}

struct memory { unsigned long long total, free, used; };
struct memory2 { unsigned version; unsigned long long total, reserved, free, used; };
static ret mib(dev d, unsigned long long *total) {
    unsigned value = 0;
    ret r = uint_of(d, "memory", &value);
    *total = (unsigned long long)value << 20;
    return r;
}
ret nvmlDeviceGetMemoryInfo(dev d, struct memory *out) {
    ret r = mib(d, &out->total);
    out->used = 0; out->free = out->total;
    return r;
}
#ifndef OLD_DRIVER
ret nvmlDeviceGetMemoryInfo_v2(dev d, struct memory2 *out) {
    ret r = mib(d, &out->total);
    out->used = 0; out->reserved = 0; out->free = out->total;
    return r;
}
#endif

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
static ret pci_of(dev d, const char *field, struct pci *out) {
    memset(out, 0, sizeof *out);
    return text_of(d, field, out->bus_id, sizeof out->bus_id);
}
ret nvmlDeviceGetPciInfo_v3(dev d, struct pci *out) {
    unsigned id = 0;
    ret r = pci_of(d, "bus", out);
    if (r == OK) r = uint_of(d, "pci", &id);
    out->id = id << 16 | 0x10de;
    return r;
}
static const char *link_key(unsigned link, const char *field, char *key, size_t size) {
    snprintf(key, size, "link%u.%s", link, field);
    return key;
}
ret nvmlDeviceGetNvLinkState(dev d, unsigned link, unsigned *out) {
    char key[64];
    return uint_of(d, link_key(link, "state", key, sizeof key), out);
}
ret nvmlDeviceGetNvLinkRemoteDeviceType(dev d, unsigned link, unsigned *out) {
    char key[64];
    return uint_of(d, link_key(link, "type", key, sizeof key), out);
}
ret nvmlDeviceGetNvLinkRemotePciInfo_v2(dev d, unsigned link, struct pci *out) {
    char key[64];
    return pci_of(d, link_key(link, "remote", key, sizeof key), out);
}
struct field { unsigned id, scope; long long stamp, latency; unsigned type; ret code; union { double d; unsigned u; unsigned long long l; } value; };
ret nvmlDeviceGetFieldValues(dev d, int count, struct field *fields) {
    char key[64];
    for (int i = 0; i < count; i++) {
        unsigned value = 0;
        snprintf(key, sizeof key, "field%u", fields[i].id);
        fields[i].code = uint_of(d, key, &value);
        fields[i].value.u = value;
    }
    return OK;
}
#ifndef OLD_DRIVER
struct fabric { unsigned version; unsigned char cluster[16]; ret status; unsigned clique; unsigned char state; unsigned health; };
ret nvmlDeviceGetGpuFabricInfoV(dev d, struct fabric *out) {
    unsigned state = 0, clique = 0;
    ret r = pair(d, "fabric", &state, &clique);
    out->state = (unsigned char)state;
    out->clique = clique;
    return r;
}
#endif
ret nvmlDeviceGetMigDeviceHandleByIndex(dev d, unsigned number_, dev *out) {
    char text[512];
    dev slice = (dev)(((long)d) * SLICE + number_);
    ret r = text_of(slice, "uuid", text, sizeof text);
    *out = slice;
    return r == NOT_SUPPORTED ? NOT_FOUND : r;
}
struct attributes { unsigned a, b, c, d, e, f, slices, compute; unsigned long long mib; };
ret nvmlDeviceGetAttributes_v2(dev d, struct attributes *out) {
    unsigned value = 0;
    ret r = uint_of(d, "memory", &value);
    memset(out, 0, sizeof *out);
    out->mib = value;
    return r;
}

/* Events: lines `event1=<index>,<xid>`, `event2=…`, each given once, in order; a wait looks every 10 ms. */
static int given;
struct event { dev device; unsigned long long type, data; unsigned gi, ci; };
ret nvmlEventSetCreate(void **out) { *out = (void *)1; return OK; }
ret nvmlEventSetFree(void *set) { return OK; }
ret nvmlDeviceGetSupportedEventTypes(dev d, unsigned long long *out) { *out = 0xf; return number("events", 1) ? OK : NOT_SUPPORTED; }
ret nvmlDeviceRegisterEvents(dev d, unsigned long long types, void *set) { return OK; }
ret nvmlEventSetWait_v2(void *set, struct event *out, unsigned timeout) {
    char key[64], text[512];
    unsigned index, xid;
    for (unsigned waited = 0;; waited += 10) {
        snprintf(key, sizeof key, "event%d", given + 1);
        if (find(key, text, sizeof text) && sscanf(text, "%u,%u", &index, &xid) == 2) {
            given++;
            out->device = (dev)(long)(index + 1);
            out->type = 8; out->data = xid; out->gi = out->ci = 0xffffffffu;
            return OK;
        }
        if (waited >= timeout) return TIMEOUT;
        usleep(10000);
    }
}
