/**
 * Message type bytes and the few bodies that both sides build or read
 * (PostgreSQL 17 documentation, "Frontend/Backend Protocol", message formats).
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";

/** Type bytes. Some letters mean different things in the two directions. */
export const MessageType = {
  authentication: 0x52, // R
  backendKeyData: 0x4b, // K
  commandComplete: 0x43, // C
  copyBothResponse: 0x57, // W
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyFail: 0x66, // f
  copyInResponse: 0x47, // G
  copyOutResponse: 0x48, // H
  dataRow: 0x44, // D
  error: 0x45, // E
  notice: 0x4e, // N
  parameterStatus: 0x53, // S
  password: 0x70, // p
  query: 0x51, // Q
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
  terminate: 0x58, // X
} as const;

/** Protocol 3.0 and the special request codes of a startup packet. */
export const StartupCode = {
  protocol3: 196608,
  cancel: 80877102,
  ssl: 80877103,
  gss: 80877104,
} as const;

/** What the server asks for in its authentication message. */
export const AuthenticationCode = { ok: 0, cleartextPassword: 3 } as const;

/** Text columns unless told otherwise. */
export const TEXT_OID = 25;

/** A result column. */
export interface Column {
  readonly name: string;
  readonly typeOid: number;
}

/** An error reported by the other side. */
export class ServerError extends Error {
  override readonly name = "ServerError";
  /** SQLSTATE, for example "42601". */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Body of ErrorResponse. */
export function errorBody(severity: string, code: string, message: string): Uint8Array {
  const writer = new ByteWriter("big");
  writer.raw(bytesOf("S")).cstr(severity).raw(bytesOf("V")).cstr(severity);
  writer.raw(bytesOf("C")).cstr(code).raw(bytesOf("M")).cstr(message).u8(0);
  return writer.bytes();
}

/** What a server has to say about a statement. */
export interface ServerReport {
  readonly severity: string;
  readonly code: string;
  readonly message: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
}

/** Reads all of ErrorResponse or NoticeResponse that people want to see. */
export function readReport(body: Uint8Array): ServerReport {
  const reader = new ByteReader(body, "big", "an error message");
  const fields = new Map<number, string>();
  for (let field = reader.u8(); field !== 0; field = reader.u8()) fields.set(field, reader.cstr());
  return {
    severity: fields.get(0x53) ?? "ERROR", // S
    code: fields.get(0x43) ?? "XX000", // C
    message: fields.get(0x4d) ?? "unknown error", // M
    detail: fields.get(0x44), // D
    hint: fields.get(0x48), // H
  };
}

/** Reads ErrorResponse or NoticeResponse. */
export function readError(body: Uint8Array): ServerError {
  const { code, message } = readReport(body);
  return new ServerError(code, message);
}

/** Body of RowDescription, all columns in text format. */
export function rowDescriptionBody(columns: readonly Column[]): Uint8Array {
  const writer = new ByteWriter("big").u16(columns.length);
  for (const column of columns) {
    writer.cstr(column.name).u32(0).u16(0).u32(column.typeOid).u16(0xffff).i32(-1).u16(0);
  }
  return writer.bytes();
}

/** The columns of a RowDescription. */
export function readColumns(body: Uint8Array): Column[] {
  const reader = new ByteReader(body, "big", "a row description");
  const columns: Column[] = [];
  for (let left = reader.u16(); left > 0; left--) {
    const name = reader.cstr();
    reader.raw(6); // the table's oid, the column's number
    columns.push({ name, typeOid: reader.u32() });
    reader.raw(8); // the type's size and modifier, the format
  }
  return columns;
}

/** Body of DataRow. */
export function dataRowBody(values: readonly (string | null)[]): Uint8Array {
  const writer = new ByteWriter("big").u16(values.length);
  for (const value of values) {
    if (value === null) writer.i32(-1);
    else {
      const bytes = bytesOf(value);
      writer.i32(bytes.length).raw(bytes);
    }
  }
  return writer.bytes();
}

/** Values of a DataRow in text format. */
export function readDataRow(body: Uint8Array): (string | null)[] {
  const reader = new ByteReader(body, "big", "a data row");
  const values: (string | null)[] = [];
  for (let left = reader.u16(); left > 0; left--) {
    const length = reader.i32();
    values.push(length < 0 ? null : new TextDecoder().decode(reader.raw(length)));
  }
  return values;
}

/** Body of CopyOutResponse and CopyBothResponse: text, no columns. */
export const COPY_RESPONSE_BODY: Uint8Array = new Uint8Array([0, 0, 0]);

/** UTF-8 bytes with a terminating NUL. */
export function cstrBytes(text: string): Uint8Array {
  return bytesOf(text + "\0");
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
