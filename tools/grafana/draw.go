package main

import (
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// ampereSeconds is no unit of Grafana's; its charges are in ampere-hours, which are large for a sensor.
const ampereSeconds = "suffix: A·s"

// lines draws a course over time. Points are not joined over a gap: what nobody measured shall look like it.
func lines() *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().LineWidth(1).FillOpacity(0).ShowPoints(common.VisibilityModeAuto).
		SpanNulls(common.BoolOrFloat64{Bool: new(false)}).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassicByName)).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).
			ShowLegend(true).Calcs([]string{})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
}

// legendTable lists many series beside the chart, with what each amounts to.
func legendTable(b *timeseries.PanelBuilder) *timeseries.PanelBuilder {
	return b.Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeTable).Placement(common.LegendPlacementRight).
		ShowLegend(true).Calcs([]string{"mean", "lastNotNull"}).SortBy("Mean").SortDesc(true))
}

// stacked draws parts of a whole.
func stacked() *timeseries.PanelBuilder {
	return lines().FillOpacity(40).Min(0).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
}

// bars draws what is rare, so that it is seen.
func bars() *timeseries.PanelBuilder {
	return lines().DrawStyle(common.GraphDrawStyleBars).FillOpacity(60).Min(0).
		Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
}

// band draws the series mean as a line, and what is between those called low and high as an area around it. There is one of each.
func band() *timeseries.PanelBuilder {
	bound := []dashboard.DynamicConfigValue{
		{Id: "custom.lineWidth", Value: 0}, {Id: "custom.showPoints", Value: "never"},
		{Id: "color", Value: map[string]any{"mode": "fixed", "fixedColor": "semi-dark-blue"}},
		{Id: "custom.hideFrom", Value: map[string]any{"legend": true, "tooltip": false, "viz": false}},
	}
	return lines().
		OverrideByName("low", bound).
		OverrideByName("high", append(slices.Clip(bound),
			dashboard.DynamicConfigValue{Id: "custom.fillBelowTo", Value: "low"}, dashboard.DynamicConfigValue{Id: "custom.fillOpacity", Value: 20})).
		OverrideByName("mean", []dashboard.DynamicConfigValue{
			{Id: "color", Value: map[string]any{"mode": "fixed", "fixedColor": "blue"}}, {Id: "custom.lineWidth", Value: 2},
		})
}

// number shows the last value of each query.
func number() *stat.PanelBuilder {
	return stat.NewPanelBuilder().ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeNone).
		TextMode(common.BigValueTextModeAuto).Orientation(common.VizOrientationAuto).JustifyMode(common.BigValueJustifyModeAuto).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Thresholds(steps("text"))
}

// ranking shows the last value of each series as a bar.
func ranking() *bargauge.PanelBuilder {
	return bargauge.NewPanelBuilder().Orientation(common.VizOrientationHorizontal).DisplayMode(common.BarGaugeDisplayModeBasic).
		ValueMode(common.BarGaugeValueModeColor).ShowUnfilled(true).Min(0).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassicByName)).
		Thresholds(steps("blue"))
}

// states shows when each series had which of some values.
func states(values ...state) *statetimeline.PanelBuilder {
	return statetimeline.NewPanelBuilder().MergeValues(true).ShowValue(common.VisibilityModeAuto).RowHeight(0.8).LineWidth(0).FillOpacity(70).
		Mappings(mappings(values)).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).
			ShowLegend(true).Calcs([]string{})).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle).Sort(common.SortOrderNone))
}

// state is what a value means.
type state struct{ value, text, color string }

func mappings(states []state) []dashboard.ValueMapping {
	var list []dashboard.ValueMapping
	for i, s := range states {
		list = append(list, dashboard.ValueMapping{ValueMap: &dashboard.ValueMap{
			Type: dashboard.MappingTypeValueToText,
			Options: map[string]dashboard.ValueMappingResult{
				s.value: {Text: &s.text, Color: &s.color, Index: new(int32(i))},
			},
		}})
	}
	return list
}

// distribution shows how a native histogram changes.
func distribution(unit string) *heatmap.PanelBuilder {
	return heatmap.NewPanelBuilder().Calculate(false).CellGap(0).ShowLegend().
		YAxis(heatmap.NewYAxisConfigBuilder().Unit(unit).AxisPlacement(common.AxisPlacementLeft)).
		Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).Scheme("Oranges").Steps(64).
			Scale(heatmap.HeatmapColorScaleExponential).Exponent(0.5).Fill("dark-orange").Reverse(false)).
		Tooltip(heatmap.NewHeatmapTooltipBuilder().Mode(common.TooltipDisplayModeSingle).YHistogram(true))
}

// column is one of a table: a label, or the value of a query.
type column struct {
	field string // a label's name, or the value of a query as "Value #A"
	title string
	unit  string // of values
	more  []dashboard.DynamicConfigValue
}

// nodeColumn is the label node, and leads to that node's board.
func nodeColumn() column {
	return column{field: "node", title: "Node", more: []dashboard.DynamicConfigValue{
		{Id: "links", Value: []dashboard.DashboardLink{toNode("${__value.text}")}},
	}}
}

// grid shows queries that have the same labels as the columns of one table.
func grid(sortBy string, columns ...column) *table.PanelBuilder {
	rename, order, exclude := map[string]string{}, map[string]int{}, map[string]bool{"Time": true}
	b := table.NewPanelBuilder().ShowHeader(true).CellHeight(common.TableCellHeightSm).
		Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{})).
		SortBy([]cog.Builder[common.TableSortByFieldState]{built[common.TableSortByFieldState]{
			common.TableSortByFieldState{DisplayName: sortBy, Desc: new(true)},
		}})
	for i, c := range columns {
		rename[c.field], order[c.field] = c.title, i
		var set []dashboard.DynamicConfigValue
		if c.unit != "" {
			set = append(set, dashboard.DynamicConfigValue{Id: "unit", Value: c.unit})
		}
		if set = append(set, c.more...); len(set) > 0 {
			b.OverrideByName(c.title, set)
		}
	}
	return b.
		WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}}).
		WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
			"excludeByName": exclude, "indexByName": order, "renameByName": rename,
		}})
}

// steps are thresholds: a color, and from each further value on another.
func steps(color string, more ...dashboard.Threshold) *dashboard.ThresholdsConfigBuilder {
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).
		Steps(append([]dashboard.Threshold{{Color: color}}, more...))
}

// from is the threshold from which on things have a color.
func from(value float64, color string) dashboard.Threshold {
	return dashboard.Threshold{Value: &value, Color: color}
}

// toNode leads from a label node to that node's dashboard, with the time and what else is chosen.
func toNode(label string) dashboard.DashboardLink {
	return dashboard.DashboardLink{
		Title: "This node", Type: dashboard.DashboardLinkTypeLink, Tags: []string{},
		Url: new("/d/" + nodeUID + "?var-node=" + label + "&${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"),
	}
}

// percent is a ratio shown in percent.
const percent = units.PercentUnit

// links are data links of a panel.
func links(list ...dashboard.DashboardLink) []cog.Builder[dashboard.DashboardLink] {
	var builders []cog.Builder[dashboard.DashboardLink]
	for _, l := range list {
		builders = append(builders, built[dashboard.DashboardLink]{l})
	}
	return builders
}

// thresholds is what an override sets for values to be colored by them.
func thresholds(t *dashboard.ThresholdsConfigBuilder) []dashboard.DynamicConfigValue {
	set, err := t.Build()
	if err != nil {
		panic(err) // nothing in it comes from outside
	}
	return []dashboard.DynamicConfigValue{{Id: "thresholds", Value: set}}
}
