/* A Vulkan driver that hands everything to another one (DRIVER) and breaks (BREAK) at its submission number AFTER. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*function)(void);
typedef function (*lookup)(void *, const char *);
typedef int (*submit)(void *, unsigned, const void *, void *);

static lookup device_lookup;
static submit submit_to_queue;
static int submissions;

static void *driver(void) {
    static void *library;
    return library ? library : (library = dlopen(DRIVER, RTLD_NOW));
}

static int count_submission(void *queue, unsigned count, const void *batches, void *fence) {
    if (++submissions >= AFTER) {
        fprintf(stderr, "the driver breaks at submission %d\n", submissions);
        BREAK;
    }
    return submit_to_queue(queue, count, batches, fence);
}

static function of_device(void *device, const char *name) {
    function found = device_lookup(device, name);
    if (found && !strcmp(name, "vkQueueSubmit")) {
        submit_to_queue = (submit)found;
        return (function)count_submission;
    }
    return found;
}

int vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *version) {
    return ((int (*)(unsigned *))dlsym(driver(), "vk_icdNegotiateLoaderICDInterfaceVersion"))(version);
}

function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
    return ((lookup)dlsym(driver(), "vk_icdGetPhysicalDeviceProcAddr"))(instance, name);
}

function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    function found = ((lookup)dlsym(driver(), "vk_icdGetInstanceProcAddr"))(instance, name);
    if (found && !strcmp(name, "vkGetDeviceProcAddr")) {
        device_lookup = (lookup)found;
        return (function)of_device;
    }
    return found;
}
