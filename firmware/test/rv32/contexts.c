// The contexts of the plain components, as a meter of two chips has them, for the table of sizes. Their names are the table's: component, then
// what it is.
#include "display.h"
#include "ina3221.h"
#include "metering.h"
#include "sampler.h"
#include "settings.h"
#include "telemetry.h"

struct ina3221 ina3221__chip;
struct metering metering__accounts;
struct sampler sampler__sampler;
struct telemetry_queue telemetry__queue;
struct telemetry_identity telemetry__identity;
struct telemetry_ring telemetry__ring_without_buffer;
struct display_view display__view;
struct display_frame display__frame;
struct settings settings__settings;
