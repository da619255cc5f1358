"""Tables in and out, through the Arrow C data interface
(https://arrow.apache.org/docs/format/CDataInterface.html).
"""
