// SPDX-License-Identifier: Apache-2.0 OR MIT
// Each line after an @ts-expect-error has one mistake. Where the compiler finds none it says so, and the check fails: so it cannot become
// one that takes everything. The lines without it are the same things without the mistake.

import type { Checked } from './check';

declare function dashboard(it: Checked): void;
type AnyPanel = Checked['panels'][number];
declare function panel(it: AnyPanel): void;
declare function variable(it: Checked['templating']['list'][number]): void;
declare function annotation(it: Checked['annotations']['list'][number]): void;

declare const good: Checked;
dashboard(good);
dashboard({ ...good, editable: true });
// @ts-expect-error: no such key
dashboard({ ...good, panel: [] });
// @ts-expect-error: not the schema that the types are of
dashboard({ ...good, schemaVersion: 16 });
// @ts-expect-error: no such mode
dashboard({ ...good, graphTooltip: 3 });
// @ts-expect-error: no uid, so links to it lead nowhere
dashboard({ ...good, uid: undefined });
// @ts-expect-error: a link of no known kind
dashboard({ ...good, links: [{ ...good.links[0]!, type: 'dashboard' }] });

const source = { type: 'prometheus', uid: '${datasource}' } as const;
const target = { refId: 'A', datasource: source, expr: 'up', format: 'time_series', instant: true, range: false, legendFormat: '' } as const;
const head = { id: 1, title: 'T', description: 'D', gridPos: { x: 0, y: 0, w: 4, h: 4 }, datasource: source, targets: [target] };
const defaults = { unit: 's', noValue: '-', custom: {}, color: { mode: 'thresholds' } } as const;
const fields = { defaults, overrides: [] };
const reduce = { calcs: ['lastNotNull'], fields: '', values: false };
const text = { orientation: 'auto', justifyMode: 'auto', textMode: 'auto', wideLayout: true } as const;
const change = { showPercentChange: false, percentChangeColorMode: 'standard' } as const;
const options = { reduceOptions: reduce, colorMode: 'value', graphMode: 'none', ...text, ...change } as const;
panel({ ...head, type: 'stat', options, fieldConfig: fields });
// @ts-expect-error: no such plugin
panel({ ...head, type: 'singlestat', options, fieldConfig: fields });
// @ts-expect-error: no such option
panel({ ...head, type: 'stat', options: { ...options, graphmode: 'none' }, fieldConfig: fields });
// @ts-expect-error: no such value of an option
panel({ ...head, type: 'stat', options: { ...options, graphMode: 'bars' }, fieldConfig: fields });
// @ts-expect-error: an option is missing
panel({ ...head, type: 'stat', options: { reduceOptions: reduce }, fieldConfig: fields });
// @ts-expect-error: the options of another kind of panel
panel({ ...head, type: 'heatmap', options, fieldConfig: fields });
// @ts-expect-error: no such unit
panel({ ...head, type: 'stat', options, fieldConfig: { ...fields, defaults: { ...defaults, unit: 'seconds' } } });
// @ts-expect-error: a stat has no custom fields
panel({ ...head, type: 'stat', options, fieldConfig: { ...fields, defaults: { ...defaults, custom: { lineWidth: 1 } } } });
// @ts-expect-error: a fixed data source
panel({ ...head, type: 'stat', options, fieldConfig: fields, datasource: { type: 'prometheus', uid: 'P1' } });
// @ts-expect-error: no such format of a query
panel({ ...head, type: 'stat', options, fieldConfig: fields, targets: [{ ...target, format: 'tables' }] });
// @ts-expect-error: no such key of a query
panel({ ...head, type: 'stat', options, fieldConfig: fields, targets: [{ ...target, query: 'up' }] });
// @ts-expect-error: no description
panel({ ...head, type: 'stat', options, fieldConfig: fields, description: undefined });

const named = { id: 'byName', options: 'x' } as const;
panel({ ...head, type: 'stat', options, fieldConfig: { defaults, overrides: [{ matcher: named, properties: [{ id: 'unit', value: 's' }] }] } });
// @ts-expect-error: no such property
panel({ ...head, type: 'stat', options, fieldConfig: { defaults, overrides: [{ matcher: named, properties: [{ id: 'units', value: 's' }] }] } });
// @ts-expect-error: a property of a table
panel({ ...head, type: 'stat', options, fieldConfig: { defaults, overrides: [{ matcher: named, properties: [{ id: 'custom.width', value: 9 }] }] } });
// @ts-expect-error: no such matcher
panel({ ...head, type: 'stat', options, fieldConfig: { defaults, overrides: [{ matcher: { id: 'named', options: 'x' }, properties: [] }] } });
// @ts-expect-error: thresholds that do not begin at the lowest of all values
panel({ ...head, type: 'stat', options, fieldConfig: { overrides: [], defaults: { ...defaults, thresholds: { mode: 'absolute', steps: [{ value: 1, color: 'red' }] } } } });
// @ts-expect-error: no such colour
panel({ ...head, type: 'stat', options, fieldConfig: { overrides: [], defaults: { ...defaults, color: { mode: 'fixed', fixedColor: 'crimson' } } } });
// @ts-expect-error: a row without its panels
panel({ id: 1, type: 'row', title: 'T', collapsed: false });
// @ts-expect-error: a transformation of no known name
panel({ ...head, type: 'stat', options, fieldConfig: fields, transformations: [{ id: 'join', options: {} }] });

const query = { type: 'query', name: 'job', datasource: source, query: 'label_values(up, job)', allValue: '.+' } as const;
variable({ ...query, refresh: 2 });
// @ts-expect-error: no such time of asking
variable({ ...query, refresh: 7 });
// @ts-expect-error: no such kind of variable
variable({ ...query, type: 'enum' });

const how = { titleFormat: '', textFormat: '', tagKeys: '', useValueForTime: false };
const mark = { name: 'N', datasource: source, enable: true, hide: false, iconColor: 'blue', target: { refId: 'A', expr: 'up' }, ...how } as const;
annotation(mark);
// @ts-expect-error: the form of Grafana 7, without a target
annotation({ ...mark, target: undefined, expr: 'up' });
