"""The Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html)."""
