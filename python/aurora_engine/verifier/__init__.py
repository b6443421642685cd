"""The independent reader: every object of a backup or a cluster's directory checked, every table rebuilt from bytes.

It shares no code with what wrote them, and is meant to be read as the specification of the formats. From the bytes up:

===================================  ===============================================================================
``crc``, ``cursor``                  the checksum; numbers of varying length
``types``, ``rowcodec``, ``keys``    values, rows and keys as bytes
``page``, ``leaf``, ``inner``,       pages, and what they hold
``overflow``, ``extents``
``sealed``, ``blocks``               pages packed for disk
``records``, ``apply``               log records, and what they do to pages
``history``                          which of them count
``layer``, ``bloom``, ``blob``       files of records and of pages
``volume``                           any page at a moment
``tree``, ``catalogue``, ``schema``  tables, their columns, their rows
``rows``, ``digest``, ``arrow``
``hotlog``, ``manifest``, ``node``,  a cluster's directory
``nodefiles``, ``directory``
``packed``, ``backup_manifest``,     a backup
``backup``, ``objects``
``commits``                          moments
``run``, ``report``                  the verification, and what it found
===================================  ===============================================================================
"""

from aurora_engine.verifier.checked import Checked
from aurora_engine.verifier.damage import Problem
from aurora_engine.verifier.report import Report, TableReport

__all__ = ["Checked", "Problem", "Report", "TableReport"]
