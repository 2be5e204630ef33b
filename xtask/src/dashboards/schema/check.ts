// SPDX-License-Identifier: Apache-2.0 OR MIT
// What a dashboard is, put together of Grafana's own types. A dashboard as JSON is given to `Checked`, and the compiler says what does not fit.
//
// @grafana/schema leaves open what belongs to a panel's plugin, a data source's query or an override; here the types that it and
// @grafana/grafana-foundation-sdk have for them are put in their places, for the kinds that are used.

import type * as grafana from '@grafana/schema';
import type { Options as BarGaugeOptions } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type {
  FieldConfig as HeatmapField,
  Options as HeatmapOptions,
} from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as StateTimelineField,
  Options as StateTimelineOptions,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  FieldConfig as TableField,
  Options as TableOptions,
} from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TextOptions } from '@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen';
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { Dataquery } from '@grafana/grafana-foundation-sdk/prometheus';
import type * as units from '@grafana/grafana-foundation-sdk/units';

/** A type as it is in JSON: where it has an enum of strings, the strings themselves; where it has an optional value, none or that. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends object
      ? { [K in keyof T]: Json<T[K]> }
      : T;

/** Without the methods that the foundation SDK marks its types with. */
type Plain<T> = Omit<T, `_implements${string}`>;

type Unit = (typeof units)[keyof typeof units];
type Colour =
  | `${'dark-' | 'semi-dark-' | '' | 'light-' | 'super-light-'}${'red' | 'orange' | 'yellow' | 'green' | 'blue' | 'purple'}`
  | 'text'
  | 'transparent';

/** Everybody's data source: the one that the reader chose. */
type Source = { type: 'prometheus'; uid: '${datasource}' };
type Target = Required<Pick<Plain<Dataquery>, 'expr' | 'refId' | 'format' | 'instant' | 'range' | 'legendFormat'>> &
  Omit<Plain<Dataquery>, 'datasource'> & { datasource: Source };

type Link = { title: string; url: string; targetBlank: boolean };
type FieldColour = Omit<grafana.FieldColor, 'fixedColor'> & { fixedColor?: Colour };
type Step = Omit<grafana.Threshold, 'color'> & { color: Colour };
type Thresholds = Omit<grafana.ThresholdsConfig, 'steps'> & { steps: [Step & { value: null }, ...Step[]] };
type Defaults<Custom> = Omit<grafana.FieldConfig, 'custom' | 'unit' | 'links' | 'color' | 'thresholds'> & {
  custom: Custom;
  unit: Unit;
  noValue: string;
  links?: Link[];
  color: FieldColour;
  thresholds?: Thresholds;
};

/** What an override may set, by its name. `custom.` is of the panel's plugin. */
type Property<Custom> =
  | { id: 'unit'; value: Unit }
  | { id: 'color'; value: FieldColour }
  | { id: 'decimals'; value: number }
  | { id: 'mappings'; value: grafana.ValueMapping[] }
  | { id: 'thresholds'; value: Thresholds }
  | { id: 'links'; value: Link[] }
  | { [K in keyof Custom & string]-?: { id: `custom.${K}`; value: NonNullable<Custom[K]> } }[keyof Custom & string];
type Matcher = { id: 'byName' | 'byRegexp' | 'byFrameRefID'; options: string };
type Transformation =
  | { id: 'merge'; options: Record<string, never> }
  | { id: 'filterFieldsByName'; options: { include: { names: string[] } } }
  | {
      id: 'organize';
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

type PanelBase = Required<Pick<grafana.Panel, 'id' | 'title' | 'description' | 'gridPos'>> &
  Pick<grafana.Panel, 'interval' | 'maxDataPoints'>;
type Queries<Custom> = {
  datasource: Source;
  targets: Target[];
  fieldConfig: {
    defaults: Defaults<Custom>;
    overrides: { matcher: Matcher; properties: Property<Custom>[] }[];
  };
  transformations?: Transformation[];
};

type Panel =
  | (PanelBase & Queries<TimeSeriesField> & { type: 'timeseries'; options: TimeSeriesOptions })
  | (PanelBase & Queries<Record<string, never>> & { type: 'stat'; options: StatOptions })
  | (PanelBase & Queries<Record<string, never>> & { type: 'bargauge'; options: BarGaugeOptions })
  | (PanelBase & Queries<StateTimelineField> & { type: 'state-timeline'; options: StateTimelineOptions })
  | (PanelBase & Queries<HeatmapField> & { type: 'heatmap'; options: HeatmapOptions })
  | (PanelBase & Queries<TableField & { width?: number }> & { type: 'table'; options: TableOptions })
  | (PanelBase & { type: 'text'; options: TextOptions });
type Row = Omit<grafana.RowPanel, 'panels'> & { panels: Panel[] };

type Variable =
  | (Omit<grafana.VariableModel, 'type' | 'datasource' | 'query' | 'current'> & {
      type: 'query';
      // Empty where Grafana shall choose.
      current?: grafana.VariableOption | Record<string, never>;
      datasource: Source;
      query: string;
      allValue: string;
    })
  | (Omit<grafana.VariableModel, 'type' | 'datasource' | 'query' | 'current'> & {
      type: 'datasource';
      query: 'prometheus';
      // Empty until a reader chooses.
      current: Record<string, never>;
    })
  | (Omit<grafana.VariableModel, 'type' | 'datasource' | 'query'> & { type: 'custom'; query: string });

type Annotation = Required<Pick<grafana.AnnotationQuery, 'name' | 'enable' | 'hide'>> & {
  datasource: Source;
  iconColor: Colour;
  target: Pick<Dataquery, 'expr' | 'interval'> & { refId: string };
  // Of Prometheus' own support of annotations, which @grafana/prometheus has without a type.
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime: boolean;
};

export type Checked = Json<
  Required<Pick<grafana.Dashboard, 'uid' | 'title' | 'description' | 'tags' | 'links' | 'time' | 'refresh'>> &
    Omit<grafana.Dashboard, 'panels' | 'templating' | 'annotations' | 'schemaVersion'> & {
      schemaVersion: 42;
      panels: (Panel | Row)[];
      templating: { list: Variable[] };
      annotations: { list: Annotation[] };
    }
>;
