"""OpenCV on one thread. Stages have a process a core, and threads of OpenCV's own would take them from one another."""

import cv2 as cv2

cv2.setNumThreads(1)
