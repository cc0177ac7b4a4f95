/** Network addresses as text, "host:port". An IPv6 host may stand in brackets. */

/** A place to listen at or to connect to. */
export interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** Parses "host:port". Throws SyntaxError for anything else. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]\s]+)\]|([^[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new SyntaxError(
      `Cannot use an address that is not host:port: current value is "${text}"`,
    );
  }
  return { hostname: match[1] ?? match[2]!, port };
}
