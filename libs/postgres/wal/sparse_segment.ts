/**
 * Synthesized WAL as segment files: a run of WAL, and the page headers that PostgreSQL looks at
 * before it (of the segment's first page, and of the page on which the run begins). Everything else
 * in the files is zeros.
 */
import type { Lsn } from "../../utils/lsn.ts";
import { PAGE_SIZE, WAL_TIMELINE_ID } from "../constants.ts";
import { type WalIdentity, writePageHeader } from "./page_header.ts";
import { pageHeaderSize, segmentName, segmentNumber, segmentStart } from "./segment.ts";

/** Bytes at an offset of a file. */
interface FilePiece {
  offset: number;
  bytes: Uint8Array;
}

/** One WAL segment file as the few pieces, in order, that are not zeros. */
export interface SparseSegment {
  segmentName: string;
  pieces: FilePiece[];
}

function headerPiece(identity: WalIdentity, pageStart: Lsn): FilePiece {
  const bytes = new Uint8Array(pageHeaderSize(pageStart, identity.segmentSize));
  writePageHeader(new DataView(bytes.buffer), 0, identity, pageStart, 0);
  return { offset: pageStart % identity.segmentSize, bytes };
}

/**
 * The segment files of the WAL `bytes` that begin at `start`. The caller makes each file
 * `segmentSize` bytes long; what no piece covers is zero.
 */
export function splitIntoSegments(
  identity: WalIdentity,
  start: Lsn,
  bytes: Uint8Array,
): SparseSegment[] {
  const { segmentSize } = identity;
  const segments: SparseSegment[] = [];
  for (let done = 0; done < bytes.length;) {
    const at = (start + done) as Lsn;
    const segment = segmentNumber(at, segmentSize);
    const offset = at % segmentSize;
    const count = Math.min(bytes.length - done, segmentSize - offset);
    const pieces: FilePiece[] = [{ offset, bytes: bytes.slice(done, done + count) }];
    if (offset % PAGE_SIZE !== 0) {
      pieces.unshift(headerPiece(identity, (at - at % PAGE_SIZE) as Lsn));
    }
    if (offset >= PAGE_SIZE) {
      pieces.unshift(headerPiece(identity, segmentStart(segment, segmentSize)));
    }
    segments.push({ segmentName: segmentName(WAL_TIMELINE_ID, segment, segmentSize), pieces });
    done += count;
  }
  return segments;
}
