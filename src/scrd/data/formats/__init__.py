"""One kind of file each: pictures, DICOM, NIfTI. :mod:`scrd.data.reading` tells them apart."""
