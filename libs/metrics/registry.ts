/**
 * Metrics of a daemon: a thin layer over prom-client. Each daemon has one registry; modules make
 * their metrics at load and the HTTP API shows them at /metrics.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

const registry = new Registry();

/** A number that only goes up. */
export function counter(name: string, help: string, labelNames: string[] = []): Counter<string> {
  return new Counter({ name, help, labelNames, registers: [registry] });
}

/** A number that goes up and down; `collect` may set it when it is read. */
export function gauge(
  name: string,
  help: string,
  labelNames: string[] = [],
  collect?: (gauge: Gauge<string>) => void,
): Gauge<string> {
  const made: Gauge<string> = new Gauge({
    name,
    help,
    labelNames,
    registers: [registry],
    ...(collect === undefined ? {} : { collect: () => collect(made) }),
  });
  return made;
}

/** A distribution; buckets in the unit of the name. */
export function histogram(
  name: string,
  help: string,
  buckets: number[],
  labelNames: string[] = [],
): Histogram<string> {
  return new Histogram({ name, help, labelNames, buckets, registers: [registry] });
}

/** A line of /metrics, as prom-client makes them. */
interface MetricLine {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** A line of /metrics that is not of a histogram. */
type ValueLine = Omit<MetricLine, "metricName">;

/** What a registry asks of a metric; prom-client has no type for it. */
function show(
  name: string,
  help: string,
  type: "counter" | "histogram",
  values: () => readonly (MetricLine | ValueLine)[],
): void {
  const shown = { name, get: () => ({ name, help, type, aggregator: "sum", values: values() }) };
  registry.registerMetric(shown as unknown as Histogram<string>);
}

/** A counter that many thousand things a second are added to. */
class HotCounter {
  #value = 0;

  get value(): number {
    return this.#value;
  }

  inc(by: number): void {
    this.#value += by;
  }
}

/** Like `counter`, without labels and without what prom-client does at each call. */
export function hotCounter(name: string, help: string): HotCounter {
  const made = new HotCounter();
  show(name, help, "counter", () => [{ labels: {}, value: made.value }]);
  return made;
}

/** One time series of a hotHistogram. */
class HotSeries {
  readonly #buckets: readonly number[];
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(buckets: readonly number[]) {
    this.#buckets = buckets;
    this.#counts = new Float64Array(buckets.length + 1); // the last one is +Inf
  }

  /** Notes `count` times the same value. */
  observe(value: number, count = 1): void {
    let at = 0;
    while (at < this.#buckets.length && value > this.#buckets[at]!) at++;
    this.#counts[at]! += count;
    this.#sum += value * count;
  }

  /** Its lines, as prom-client wants them; nothing while it is empty. */
  lines(name: string, labels: Readonly<Record<string, string>>): MetricLine[] {
    let total = 0;
    const buckets = Array.from(this.#counts, (count, at) => {
      total += count;
      const le = this.#buckets[at] ?? "+Inf";
      return { metricName: `${name}_bucket`, labels: { le, ...labels }, value: total };
    });
    if (total === 0) return [];
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: total },
    ];
  }
}

/**
 * A distribution that is noted many thousand times a second: prom-client's takes a microsecond for
 * each. One series for each value of the label `label`, in their order.
 */
export function hotHistogram(
  name: string,
  help: string,
  buckets: readonly number[],
  label: string,
  values: readonly string[],
): HotSeries[] {
  const series = values.map(() => new HotSeries(buckets));
  const lines = () => series.flatMap((one, at) => one.lines(name, { [label]: values[at]! }));
  show(name, help, "histogram", lines);
  return series;
}

/** Like hotHistogram, of one series without a label. */
export function hotDistribution(
  name: string,
  help: string,
  buckets: readonly number[],
): HotSeries {
  const series = new HotSeries(buckets);
  show(name, help, "histogram", () => series.lines(name, {}));
  return series;
}

/** The text of /metrics, and its content type. */
export async function metricsText(): Promise<{ body: string; contentType: string }> {
  return { body: await registry.metrics(), contentType: registry.contentType };
}
