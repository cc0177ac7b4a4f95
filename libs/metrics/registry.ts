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

/** The text of /metrics, and its content type. */
export async function metricsText(): Promise<{ body: string; contentType: string }> {
  return { body: await registry.metrics(), contentType: registry.contentType };
}
