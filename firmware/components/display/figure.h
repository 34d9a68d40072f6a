// Numbers as they are shown. Of this component, and its tests.
#pragma once

#include <stdint.h>

// Sign, figures and point; and the unit, as "-12.34" and "kW".
struct display_figure {
    char digits[8], unit[4];
};

// Watts from 0.000 to 9999, then kW.
struct display_figure display_power(int64_t power_uw);
// Volts likewise.
struct display_figure display_voltage(int64_t voltage_uv);
// mA from 0.0 to 9999, then A.
struct display_figure display_current(int64_t current_ua);
// mWh from 0.0 to 999.9, then Wh with five figures, so that one sees it grow.
struct display_figure display_energy(int64_t energy_uwh);
