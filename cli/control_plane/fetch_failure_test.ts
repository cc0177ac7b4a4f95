import assert from "node:assert/strict";
import { fetchFailure } from "./fetch_failure.ts";

Deno.test("fetchFailure() is one line, with what the reason calls for", () => {
  const unknownIssuer = `\x1b[0m\x1b[1m\x1b[31merror\x1b[0m: Failed caching npm package 'a@1'
    0: error sending request for url (https://r/a): client error (Connect): invalid certificate
    1: client error (Connect)
    at file:///x.ts:1:1`;
  assert.equal(
    fetchFailure(unknownIssuer),
    "Failed caching npm package 'a@1': error sending request for url (https://r/a): client error " +
      "(Connect): invalid certificate; if your system trusts who signed it (a proxy, say), set " +
      "DENO_TLS_CA_STORE=system",
  );
  assert.match(fetchFailure("client error (Connect): tcp connect error"), /; .* HTTPS_PROXY names/);
  assert.match(
    fetchFailure("Failed\n    0: failed to create '/x': Permission denied (os error 13)"),
    /^Failed: failed to create '\/x': Permission denied \(os error 13\); set DENO_DIR to/,
  );
  assert.equal(fetchFailure("error: something else\nmore"), "something else");
});
